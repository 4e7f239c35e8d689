-- core.key: private keys, made, read, saved and used.
-- OpenSSL's command line is the judge of what comes out.

local key = require "core.key"
local anyone = dofile((debug.getinfo(1, "S").source:match "^@(.-)tests/core/" or "") .. "tests/support/anyone.lua")

local program = io.popen("readlink /proc/$PPID/exe"):read("l")
local folder

local function run(command, ...)
  local pipe = io.popen("cd '" .. folder .. "' && { " .. command:format(...) .. "; } 2>&1")
  local text = pipe:read("a")
  return text, select(3, pipe:close())
end

local function write(name, bytes)
  local path = folder .. "/" .. name
  local file <close> = assert(io.open(path, "wb"))
  file:write(bytes)
  return path
end

local function read(name)
  local file <close> = assert(io.open(folder .. "/" .. name, "rb"))
  return file:read("a")
end

-- What a chunk prints in a program of its own, started by a shell's prefix.
local function elsewhere(prefix, chunk)
  return (run("%s '%s' -e '%s'", prefix, prefix:find "setpriv" and anyone.program() or program, chunk))
end

local function der(tag, content)
  local length = #content
  local octets = length < 128 and string.char(length)
    or length < 65536 and "\x82" .. string.pack(">I2", length) or "\x83" .. string.pack(">I3", length)
  return string.char(tag) .. octets .. content
end

describe("core.key", function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir -m 755 '" .. folder .. "'"))
  end)

  teardown(function()
    os.execute("rm -rf '" .. folder .. "'")
  end)

  describe("generate", function()
    for kind, said in pairs {
      ["rsa:2048"] = "Private%-Key: %(2048 bit",
      ["ec:P-256"] = "NIST CURVE: P%-256",
      ["ec:P-384"] = "NIST CURVE: P%-384",
      ["ec:P-521"] = "NIST CURVE: P%-521",
      ["ed25519"] = "ED25519 Private%-Key",
      ["ed448"] = "ED448 Private%-Key",
    } do
      it("makes a key of kind " .. kind .. " that openssl accepts", function()
        local name = kind:gsub(":", "-") .. ".pem"
        local made <close> = assert(key.generate(kind))
        assert.equal(kind, made:type())
        assert.is_true(made:save(folder .. "/" .. name))
        local text, status = run("openssl pkey -in %s -noout -text -check", name)
        assert.equal(0, status, text)
        assert.matches(said, text)
        assert.matches("Key is valid", text)
        local spki = run("openssl pkey -in %s -pubout", name)
        assert.equal(spki, made:public())
        local digest = run("openssl pkey -in %s -pubout -outform DER | sha256sum", name)
        assert.equal(digest:match("^%x+"), made:fingerprint())
      end)
    end

    it("makes no two keys alike", function()
      assert.equal("ec:P-256", key.generate("ec:P-256", "more"):type())
      assert.not_equal(key.generate("ec:P-256"):fingerprint(), key.generate("ec:P-256"):fingerprint())
    end)

    it("refuses RSA keys that are too short or too long", function()
      for _, kind in ipairs { "rsa:1024", "rsa:2047", "rsa:8193", "rsa:99999999999999999999999" } do
        local made, message, code = key.generate(kind)
        assert.is_nil(made)
        assert.equal("cannot generate a key of kind '" .. kind .. "': not 2048 to 8192 bits", message)
        assert.equal("limit", code)
      end
    end)

    it("refuses kinds that OpenSSL does not know", function()
      for kind, why in pairs {
        ["rsa:big"] = "no number of bits",
        ["rsa:"] = "no number of bits",
        ["ec:P-999"] = "invalid curve",
        ["kyber"] = "unsupported",
        [""] = ".+",
      } do
        local made, message, code = key.generate(kind)
        assert.is_nil(made)
        assert.matches("^cannot generate a key of kind '" .. kind:gsub("%-", "%%-") .. "': " .. why .. "$", message)
        assert.equal("unsupported", code)
      end
    end)
  end)

  describe("load", function()
    local plain

    setup(function()
      plain = assert(key.generate("ec:P-256"))
      assert(plain:save(folder .. "/load.pem"))
      run("openssl pkey -in load.pem -traditional -out load.trad.pem")
      run("openssl pkey -in load.pem -outform DER -out load.der")
      run("openssl pkey -in load.pem -traditional -outform DER -out load.trad.der")
      run("openssl pkcs8 -topk8 -in load.pem -v2 aes-256-cbc -passout pass:secret -out load.pbes2.pem")
      run("openssl pkcs8 -topk8 -in load.pem -v2 aes-256-cbc -passout pass:secret -outform DER -out load.pbes2.der")
      run("openssl pkcs8 -topk8 -in load.pem -scrypt -passout pass:secret -out load.scrypt.pem")
      run("openssl ec -in load.pem -aes128 -passout pass:secret -out load.dek.pem")
      run("openssl pkey -in load.pem -pubout -out load.pub.pem")
      run("openssl pkey -in load.pem -pubout -outform DER -out load.pub.der")
      run("openssl req -x509 -new -key load.pem -subj /CN=x -out load.crt")
    end)

    for _, name in ipairs { "load.pem", "load.trad.pem", "load.der", "load.trad.der" } do
      it("reads " .. name, function()
        assert.equal(plain:fingerprint(), assert(key.load(read(name))):fingerprint())
      end)
    end

    it("reads a traditional RSA key", function()
      run("openssl genrsa -traditional -out rsa.trad.pem 2048")
      assert.matches("BEGIN RSA PRIVATE KEY", read("rsa.trad.pem"))
      local digest = run("openssl pkey -in rsa.trad.pem -pubout -outform DER | sha256sum")
      local loaded = assert(key.load(read("rsa.trad.pem")))
      assert.equal("rsa:2048", loaded:type())
      assert.equal(2048, loaded:bits())
      assert.equal(digest:match("^%x+"), loaded:fingerprint())
    end)

    it("reads a key after curve parameters, certificates and other text", function()
      run("openssl ecparam -name prime256v1 -genkey -out params.pem")
      assert.matches("BEGIN EC PARAMETERS.*BEGIN EC PRIVATE KEY", read("params.pem"))
      assert.truthy(key.load(read("params.pem")))
      local pile = "Bag Attributes\n  friendlyName: x\n" .. read("load.crt") .. read("load.pem")
      assert.equal(plain:fingerprint(), assert(key.load(pile)):fingerprint())
    end)

    it("reads what editors make of a PEM file: CRLF, a byte order mark, spaces at the ends", function()
      local text = read("load.pem")
      for _, bytes in ipairs { (text:gsub("\n", "\r\n")), "\xEF\xBB\xBF" .. text,
                               (text:gsub("\n", "  \n")), (text:gsub("\n$", "")) } do
        assert.equal(plain:fingerprint(), assert(key.load(bytes)):fingerprint())
      end
    end)

    for _, name in ipairs { "load.pbes2.pem", "load.pbes2.der", "load.scrypt.pem", "load.dek.pem" } do
      it("reads the encrypted " .. name .. " with its password only", function()
        local bytes = read(name)
        assert.equal(plain:fingerprint(), assert(key.load(bytes, "secret")):fingerprint())
        local loaded, message, code = key.load(bytes)
        assert.is_nil(loaded)
        assert.equal("cannot read the private key: it is encrypted and no password was given", message)
        assert.equal("denied", code)
        for _, wrong in ipairs { "Secret", "", "secret ", ("x"):rep(5000) } do
          loaded, message, code = key.load(bytes, wrong)
          assert.is_nil(loaded)
          assert.equal("cannot read the private key: wrong password", message)
          assert.equal("denied", code)
        end
      end)
    end

    it("takes no notice of a password that is not needed", function()
      assert.truthy(key.load(read("load.pem"), "secret"))
    end)

    it("never asks on a terminal", function()
      write("ask.lua", "print(core.key.open(arg[1]))")
      local text = run("script -qec \"'%s' ./ask.lua load.dek.pem\" /dev/null </dev/null", program)
      assert.matches("^nil%s+cannot read the private key in 'load.dek.pem': it is encrypted", text)
    end)

    it("tells an encryption that is not supported from a wrong password", function()
      run("openssl pkcs8 -topk8 -provider legacy -provider default -in load.pem -v1 PBE-MD5-DES"
        .. " -passout pass:secret -out load.des.pem")
      local loaded, message, code = key.load(read("load.des.pem"), "secret")
      assert.is_nil(loaded)
      assert.equal("cannot read the private key: its encryption is unsupported", message)
      assert.equal("parse", code)
    end)

    it("refuses what holds no private key", function()
      for name, bytes in pairs {
        empty = "", garbage = "hello", binary = "\x30\x82\x01\x00" .. ("\0"):rep(256),
        certificate = read("load.crt"), public = read("load.pub.pem"), public_der = read("load.pub.der"),
        mark = "\xEF\xBB\xBF", zero = "\0",
      } do
        local loaded, message, code = key.load(bytes)
        assert.is_nil(loaded, name)
        assert.equal("cannot read the private key: no private key in PEM or DER", message)
        assert.equal("parse", code)
      end
    end)

    it("refuses a private key that is cut or spoilt", function()
      local text = read("load.pem")
      local whole = read("load.der")
      for _, bytes in ipairs {
        text:sub(1, 100), whole:sub(1, -2), whole:sub(1, 40),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----\n",
      } do
        local loaded, message, code = key.load(bytes)
        assert.is_nil(loaded)
        assert.matches("^cannot read the private key: ", message)
        assert.equal("parse", code)
        loaded, message, code = key.load(bytes, "password")
        assert.is_nil(loaded)
        assert.matches("^cannot read the private key: ", message)
        assert.equal("parse", code)
      end
    end)

    it("refuses more than 1 MiB", function()
      local loaded, message, code = key.load((" "):rep(1024 * 1024 + 1))
      assert.is_nil(loaded)
      assert.equal("cannot read the private key: more than 1 MiB", message)
      assert.equal("limit", code)
    end)

    it("refuses an RSA key of more than 16384 bits", function()
      local function integer(octets) return der(2, octets) end
      local big = "\x7F" .. ("\xFF"):rep(2100)
      local three = integer("\3")
      local bytes = der(0x30, integer("\0") .. integer(big) .. integer("\1\0\1") .. integer(big)
        .. three .. three .. three .. three .. three)
      local loaded, message, code = key.load(bytes)
      assert.is_nil(loaded)
      assert.equal("cannot read the private key: an RSA key of more than 16384 bits", message)
      assert.equal("limit", code)
    end)

    -- A PKCS #8 key whose public half is a power modulo a prime of so many octets.
    local function discrete(octets)
      local function integer(bytes) return der(2, bytes) end
      local big = "\x7F" .. ("\xFF"):rep(octets)
      return der(0x30, integer "\0" .. der(0x30, der(6, "\x2A\x86\x48\xCE\x38\4\1") .. der(0x30, integer(big)
        .. integer(big) .. integer "\3")) .. der(4, integer("\x5F" .. ("\xFF"):rep(octets))))
    end

    it("refuses a DSA key at once, however long it is", function()
      for _, octets in ipairs { 256, 100000 } do
        local before = require("core.host").clock()
        assert.same({ nil, "cannot read the private key: a DSA or DH key, which serves no TLS", "parse" },
          { key.load(discrete(octets)) })
        assert.is_true(require("core.host").clock() - before < 2)
      end
      run("openssl dsaparam -genkey 1024 2>/dev/null | openssl dsa -out dsa.pem 2>/dev/null")
      assert.same({ nil, "cannot read the private key: a DSA or DH key, which serves no TLS", "parse" },
        { key.load(read "dsa.pem") })
    end)

    it("refuses a key of more than 16 KiB, which is none that could be used", function()
      local long = der(0x30, der(2, "\0") .. der(0x30, der(6, "\x2A\x86\x48\xCE\x3D\2\1")
        .. der(6, "\x2A\x86\x48\xCE\x3D\3\1\7")) .. der(4, ("\1"):rep(16 * 1024)))
      for _, bytes in ipairs { long, der(0x30, der(2, ("\1"):rep(16 * 1024))) } do
        assert.same({ nil, "cannot read the private key: a key of more than 16384 bits", "limit" }, { key.load(bytes) })
      end
    end)

    it("keeps the fingerprint of a key whose curve is written out in full", function()
      run("openssl ecparam -name prime256v1 -param_enc explicit -genkey -noout -out explicit.pem")
      local loaded = assert(key.load(read("explicit.pem")))
      local digest = run("openssl pkey -in explicit.pem -pubout -outform DER | sha256sum")
      assert.equal(digest:match("^%x+"), loaded:fingerprint())
    end)
  end)

  describe("open", function()
    it("reads a file as load reads bytes", function()
      local made = key.generate("ed25519")
      assert(made:save(folder .. "/open.pem", "secret"))
      assert.equal(made:fingerprint(), assert(key.open(folder .. "/open.pem", "secret")):fingerprint())
      local opened, message, code = key.open(folder .. "/open.pem")
      assert.is_nil(opened)
      assert.equal("cannot read the private key in '" .. folder
        .. "/open.pem': it is encrypted and no password was given", message)
      assert.equal("denied", code)
      opened, message, code = key.open(folder .. "/open.pem", "wrong")
      assert.is_nil(opened)
      assert.equal("cannot read the private key in '" .. folder .. "/open.pem': wrong password", message)
      assert.equal("denied", code)
    end)

    it("says what is wrong with a file", function()
      local full = write("full", (" "):rep(1024 * 1024 + 1))
      local none = write("none", "nothing")
      run("mkfifo fifo")
      for path, expected in pairs {
        [folder .. "/absent"] = { "cannot read '%s': No such file or directory", "missing" },
        [folder] = { "cannot read '%s': not a regular file", "io" },
        [folder .. "/fifo"] = { "cannot read '%s': not a regular file", "io" },
        ["/dev/null"] = { "cannot read '%s': not a regular file", "io" },
        [full] = { "cannot read '%s': more than 1048576 bytes", "limit" },
        [none] = { "cannot read the private key in '%s': no private key in PEM or DER", "parse" },
      } do
        local opened, message, code = key.open(path)
        assert.is_nil(opened)
        assert.equal(expected[1]:format(path), message)
        assert.equal(expected[2], code)
      end
    end)

    it("says that a file may not be read", function()
      write("secret.pem", "x")
      run("chmod 600 secret.pem")
      local text = elsewhere("setpriv --reuid=65534 --regid=65534 --clear-groups",
        "print(core.key.open([[" .. folder .. "/secret.pem]]))")
      assert.equal("nil\tcannot read '" .. folder .. "/secret.pem': Permission denied\tdenied\n", text)
    end)
  end)

  describe("save", function()
    local made

    setup(function()
      made = assert(key.generate("ec:P-256"))
    end)

    it("writes PKCS #8 that only its owner may read, whatever the umask", function()
      for _, umask in ipairs { "000", "022", "077", "277" } do
        local name = "mode" .. umask .. ".pem"
        elsewhere("umask " .. umask .. ";",
          "assert(core.key.generate([[ed25519]]):save([[" .. folder .. "/" .. name .. "]]))")
        assert.equal("600 regular file\n", (run("stat -c '%%a %%F' %s", name)))
        assert.matches("^%-%-%-%-%-BEGIN PRIVATE KEY%-%-%-%-%-\n", read(name))
      end
    end)

    it("is read back by load and open", function()
      local path = folder .. "/back.pem"
      assert.is_true(made:save(path))
      assert.equal(made:fingerprint(), key.open(path):fingerprint())
      assert.equal(made:fingerprint(), key.load(read("back.pem")):fingerprint())
    end)

    it("encrypts with PBES2 and AES-256-CBC when there is a password", function()
      assert.is_true(made:save(folder .. "/encrypted.pem", "pass word"))
      assert.matches("^%-%-%-%-%-BEGIN ENCRYPTED PRIVATE KEY", read("encrypted.pem"))
      local text = run("openssl asn1parse -in encrypted.pem")
      assert.matches("PBES2.*PBKDF2.*hmacWithSHA256.*aes%-256%-cbc", text)
      local spki = run("openssl pkey -in encrypted.pem -passin 'pass:pass word' -pubout")
      assert.equal(made:public(), spki)
    end)

    it("writes over nothing, and through no link", function()
      local path = write("taken.pem", "old")
      local done, message, code = made:save(path)
      assert.is_nil(done)
      assert.equal("cannot write '" .. path .. "': File exists", message)
      assert.equal("exists", code)
      assert.equal("old", read("taken.pem"))
      run("ln -s target link.pem")
      done, message, code = made:save(folder .. "/link.pem")
      assert.is_nil(done)
      assert.equal("cannot write '" .. folder .. "/link.pem': File exists", message)
      assert.equal("exists", code)
      assert.equal(1, (select(2, run("test -e target"))))
    end)

    it("says that the folder is missing, or is none", function()
      for _, path in ipairs { folder .. "/absent/k.pem", folder .. "/back.pem/k.pem" } do
        local done, message, code = made:save(path)
        assert.is_nil(done)
        assert.matches("^cannot write '" .. path:gsub("%p", "%%%0") .. "': No", message)
        assert.equal("missing", code)
      end
    end)

    it("says that the folder may not be written", function()
      local text = elsewhere("setpriv --reuid=65534 --regid=65534 --clear-groups",
        "print(core.key.generate([[ed25519]]):save([[" .. folder .. "/k.pem]]))")
      assert.equal("nil\tcannot write '" .. folder .. "/k.pem': Permission denied\tdenied\n", text)
    end)

    it("leaves no file behind when the bytes cannot be written", function()
      local text = elsewhere("trap '' XFSZ; ulimit -f 0;",
        "print(core.key.generate([[ed25519]]):save([[" .. folder .. "/cut.pem]]))")
      assert.equal("nil\tcannot write '" .. folder .. "/cut.pem': File too large\tio\n", text)
      assert.equal(1, (select(2, run("test -e cut.pem"))))
    end)

    it("raises on an empty password", function()
      assert.error_matches(function() made:save(folder .. "/e.pem", "") end, "the password is empty")
    end)
  end)

  describe("sign", function()
    local kinds = { ["rsa:2048"] = "sha512", ["ec:P-384"] = "sha384", ["ec:P-256"] = "sha256" }
    for kind, digest in pairs(kinds) do
      it("signs with " .. kind .. " what openssl verifies", function()
        local made = key.generate(kind)
        write("data", "some data")
        write("spki", made:public())
        write("sig", assert(made:sign("some data", digest)))
        assert.matches("^Verified OK", (run("openssl dgst -%s -verify spki -signature sig data", digest)))
        write("data", "other data")
        assert.not_matches("Verified OK", (run("openssl dgst -%s -verify spki -signature sig data", digest)))
      end)
    end

    it("signs with ed25519, which takes no digest", function()
      local made = key.generate("ed25519")
      write("data", "some data")
      write("spki", made:public())
      write("sig", assert(made:sign("some data", "sha1")))
      assert.matches("Verified Successfully",
        (run("openssl pkeyutl -verify -pubin -inkey spki -rawin -in data -sigfile sig")))
    end)

    it("uses SHA-256 when no digest is named", function()
      local made = key.generate("rsa:2048")
      assert.equal(made:sign("x", "sha256"), made:sign("x"))
    end)

    it("refuses digests that are unknown and keys that cannot sign", function()
      local signature, message, code = key.generate("ec:P-256"):sign("x", "sha0815")
      assert.is_nil(signature)
      assert.equal("cannot sign with digest 'sha0815': unknown", message)
      assert.equal("unsupported", code)
      signature, message, code = key.generate("x25519"):sign("x")
      assert.is_nil(signature)
      assert.matches("^cannot sign with a key of kind 'x25519': ", message)
      assert.equal("unsupported", code)
    end)
  end)

  describe("a key", function()
    it("shows its kind and the start of its fingerprint, and never its secret", function()
      local made = key.generate("ec:P-256")
      assert.equal('key "ec:P-256" ' .. made:fingerprint():sub(1, 12), tostring(made))
      assert.equal(64, #made:fingerprint())
    end)

    it("is of no use once it is closed, and may be closed twice", function()
      local made = key.generate("ed25519")
      made:close()
      made:close()
      assert.equal("key (closed)", tostring(made))
      for _, method in ipairs { "fingerprint", "public", "type", "bits", "sign", "save" } do
        assert.error_matches(function() made[method](made, "x") end, "the key is closed")
      end
    end)

    it("is closed at the end of its scope", function()
      local kept
      do
        local made <close> = key.generate("ed25519")
        kept = made
      end
      assert.equal("key (closed)", tostring(kept))
    end)

    it("raises on arguments of a wrong type", function()
      assert.error_matches(function() key.generate() end, "string expected")
      assert.error_matches(function() key.load({}) end, "string expected")
      assert.error_matches(function() key.load("", {}) end, "string expected")
      assert.error_matches(function() key.open() end, "string expected")
      assert.error_matches(function() key.generate("ed25519").sign(io.stdout, "x") end, "core.key expected")
    end)
  end)
end)
