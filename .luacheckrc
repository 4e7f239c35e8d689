std = "lua54"
max_line_length = 120
max_cyclomatic_complexity = 20
exclude_files = { "build" }
files["tests"] = { std = "lua54+busted", globals = { "core" }, max_line_length = 190, max_cyclomatic_complexity = false, self = false }
