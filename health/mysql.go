package health

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// MySQL is the kind "mysql": a server of MySQL or MariaDB must greet, and answer a login. A client that goes after the greeting
// would count as broken, and the server locks out hosts with too many of those (max_connect_errors); so a login is made in any case.
type MySQL struct {
	// User is who logs in. Default: somebody unknown, whom the server must refuse as such.
	User string `json:"user,omitempty"`
	// Password is user's. MySQL's own method caching_sha2_password may want tls for it.
	Password string `json:"password,omitempty"`
	Secure
}

// Capabilities of a client, and commands (MySQL internals, connection phase; include/mysql_com.h has the names).
const (
	mysqlLongPassword = 0x1
	mysqlProtocol41   = 0x200
	mysqlSSL          = 0x800
	mysqlSecure       = 0x8000
	mysqlPluginAuth   = 0x80000

	mysqlMaxPacket = 4096 // of those that belong to a login
	mysqlUTF8      = 33   // collation
)

// Kind implements Prober.
func (*MySQL) Kind() string { return "mysql" }

// Prepare implements Prober.
func (m *MySQL) Prepare() error {
	if bytes.IndexByte([]byte(m.User), 0) >= 0 || len(m.User) > 256 || len(m.Password) > 256 {
		return errors.New("user: a name of at most 256 bytes is expected, and such a password")
	}
	if m.Secure.TLS == "yes" {
		return errors.New("tls: no or starttls is expected")
	}
	return m.Secure.prepare("")
}

// mysqlTalk is a conversation in MySQL's packets.
type mysqlTalk struct {
	*talk
	seq byte
}

// packet reads a packet.
func (t *mysqlTalk) packet(what string) ([]byte, error) {
	var head [4]byte
	if err := t.full(head[:], what); err != nil {
		return nil, err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n == 0 || n > mysqlMaxPacket || head[3] != t.seq {
		return nil, fmt.Errorf("no %s: what comes isn't MySQL's protocol", what)
	}
	t.seq++
	b := make([]byte, n)
	return b, t.full(b, what)
}

// put sends a packet.
func (t *mysqlTalk) put(b []byte) error {
	head := []byte{byte(len(b)), byte(len(b) >> 8), byte(len(b) >> 16), t.seq}
	t.seq++
	if _, err := t.Write(append(head, b...)); err != nil {
		return because("cannot send", err)
	}
	return nil
}

// Probe implements Prober.
func (m *MySQL) Probe(ctx context.Context, to *Target) (string, error) {
	plain, err := dial(ctx, to, "tcp")
	if err != nil {
		return "", err
	}
	defer plain.close()
	t := &mysqlTalk{talk: plain}
	b, err := t.packet("greeting")
	if err != nil {
		return "", err
	}
	if b[0] == 0xff {
		_, text := mysqlError(b)
		return "", errors.New(text)
	}
	g, ok := parseMySQLGreeting(b)
	if !ok {
		return "", errors.New("the greeting isn't MySQL's")
	}
	capabilities := uint32(mysqlLongPassword | mysqlProtocol41 | mysqlSecure | mysqlPluginAuth)
	if m.starts() {
		if g.capabilities&mysqlSSL == 0 {
			return "", errors.New("the server offers no TLS")
		}
		capabilities |= mysqlSSL
	}
	user := m.User
	if user == "" {
		user = "uvs-check"
	}
	login := binary.LittleEndian.AppendUint32(nil, capabilities)
	login = binary.LittleEndian.AppendUint32(login, mysqlMaxPacket)
	login = append(login, mysqlUTF8)
	login = append(login, make([]byte, 23)...)
	if m.starts() {
		if err := t.put(login); err != nil {
			return "", err
		}
		if err := t.startTLS(m.config); err != nil {
			return "", err
		}
	}
	proof := m.proof(g.plugin, g.challenge)
	login = append(append(login, user...), 0, byte(len(proof)))
	login = append(append(append(login, proof...), g.plugin...), 0)
	if err := t.put(login); err != nil {
		return "", err
	}
	return m.result(t, &g)
}

// result sees a login to its end.
func (m *MySQL) result(t *mysqlTalk, g *mysqlGreeting) (string, error) {
	for range 4 { // a server that never comes to an end isn't waited for
		b, err := t.packet("reply to the login")
		if err != nil {
			return "", err
		}
		var answer []byte
		switch {
		case b[0] == 0x00:
			t.bye([]byte{1, 0, 0, 0, 1}) // COM_QUIT
			return g.version, nil
		case b[0] == 0xff:
			code, text := mysqlError(b)
			if m.User == "" && mysqlRefusals[code] {
				return g.version, nil
			}
			return "", errors.New(text)
		case b[0] == 0xfe && len(b) > 1: // another method
			plugin, rest, _ := bytes.Cut(b[1:], []byte{0})
			g.plugin = string(plugin)
			answer = m.proof(g.plugin, bytes.TrimSuffix(rest, []byte{0}))
		case len(b) == 2 && b[0] == 1 && b[1] == 3: // caching_sha2_password: it knows the password's hash
			continue
		case len(b) == 2 && b[0] == 1 && b[1] == 4: // it doesn't
			if !m.starts() {
				return "", errors.New("the server wants the password itself, which it only gets with tls=starttls")
			}
			answer = append([]byte(m.Password), 0)
		default:
			return "", errors.New("the reply to the login isn't MySQL's")
		}
		if err := t.put(answer); err != nil {
			return "", err
		}
	}
	return "", errors.New("the login comes to no end")
}

// mysqlRefusals are the errors with which a working server refuses somebody unknown: access denied, no such method for him.
var mysqlRefusals = map[uint16]bool{1045: true, 1698: true, 1044: true, 1251: true, 1524: true, 3118: true, 3159: true}

// proof answers a challenge by a method of proving that one knows the password. An unknown method gets an empty answer.
func (m *MySQL) proof(plugin string, challenge []byte) []byte {
	if m.Password == "" || len(challenge) < 20 {
		return nil
	}
	challenge = challenge[:20]
	switch plugin {
	case "mysql_native_password":
		once := sha1.Sum([]byte(m.Password))
		twice := sha1.Sum(once[:])
		with := sha1.Sum(append(append([]byte(nil), challenge...), twice[:]...))
		for i := range with {
			with[i] ^= once[i]
		}
		return with[:]
	case "caching_sha2_password":
		once := sha256.Sum256([]byte(m.Password))
		twice := sha256.Sum256(once[:])
		with := sha256.Sum256(append(twice[:], challenge...))
		for i := range with {
			with[i] ^= once[i]
		}
		return with[:]
	}
	return nil
}

// mysqlGreeting is what the server's first packet says.
type mysqlGreeting struct {
	version      string
	challenge    []byte // 20 bytes
	capabilities uint32
	plugin       string // the method of proof
}

// parseMySQLGreeting reads a greeting of protocol 10 (Protocol::HandshakeV10).
func parseMySQLGreeting(b []byte) (g mysqlGreeting, ok bool) {
	version, rest, ok := bytes.Cut(b[1:], []byte{0})
	if !ok || b[0] != 10 || len(rest) < 31+13 {
		return g, false
	}
	// MariaDB pretends to be an old MySQL, for replicas that know no other number than 5.
	g.version = printable(strings.TrimPrefix(string(version), "5.5.5-"))
	g.challenge = append(g.challenge, rest[4:12]...)
	g.capabilities = uint32(binary.LittleEndian.Uint16(rest[13:])) | uint32(binary.LittleEndian.Uint16(rest[18:]))<<16
	second := max(13, int(rest[20])-8)
	if rest = rest[31:]; len(rest) < second {
		return g, false
	}
	g.challenge = append(g.challenge, rest[:12]...)
	g.plugin = "mysql_native_password"
	if g.capabilities&mysqlPluginAuth != 0 {
		plugin, _, _ := bytes.Cut(rest[second:], []byte{0})
		if g.plugin = string(plugin); len(plugin) > 64 {
			return g, false
		}
	}
	return g, true
}

// mysqlError reads an error's packet.
func mysqlError(b []byte) (code uint16, text string) {
	if len(b) < 3 {
		return 0, "an error without a number"
	}
	code, b = binary.LittleEndian.Uint16(b[1:]), b[3:]
	if len(b) >= 6 && b[0] == '#' {
		b = b[6:]
	}
	return code, fmt.Sprintf("error %d: %s", code, printable(string(b)))
}
