package health

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"uvs/packet"
	"uvs/service"
)

// read reads n bytes of what the client says.
func read(t *testing.T, conn net.Conn, n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Errorf("the client says no %d bytes: %v", n, err)
	}
	return b
}

// nameServer answers one question: what with its records.
func nameServer(t *testing.T, tcp bool, with func(m *dnsmessage.Message)) func(net.Conn) {
	return func(conn net.Conn) {
		var q []byte
		if tcp {
			q = read(t, conn, int(packet.Word(read(t, conn, 2))))
		} else {
			q = make([]byte, 512)
			n, _ := conn.Read(q)
			q = q[:n]
		}
		var m dnsmessage.Message
		if err := m.Unpack(q); err != nil {
			t.Errorf("the question: %v", err)
			return
		}
		conn.Write(append([]byte{0, 1}, q...)) // noise: another's question
		m.Response = true
		with(&m)
		a, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		if tcp {
			a = append([]byte{byte(len(a) >> 8), byte(len(a))}, a...)
		}
		conn.Write(a)
		io.Copy(io.Discard, conn)
	}
}

func TestDNS(t *testing.T) {
	name := dnsmessage.MustNewName("www.example.com.")
	head := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET}
	for _, c := range []struct {
		name  string
		check DNS
		with  func(m *dnsmessage.Message)
		want  string
	}{
		{"nothing", DNS{Query: "www.example.com"}, func(*dnsmessage.Message) {}, "NOERROR"},
		{"a record", DNS{Query: "www.example.com.", Answer: "192.0.2.1"}, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.CNAMEResource{CNAME: name}}, {Header: head, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
		}, "NOERROR 192.0.2.1"},
		{"another", DNS{Query: "www.example.com", Answer: "192.0.2.2"}, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}}}
		}, `down: NOERROR, but no record says "192.0.2.2": 192.0.2.1`},
		{"text", DNS{Query: "www.example.com", Type: "txt", Answer: "ab"}, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{"a", "b"}}}}
		}, "NOERROR ab"},
		{"refused", DNS{}, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused }, "down: REFUSED, not NOERROR"},
		{"as expected", DNS{Rcode: "noerror,refused"}, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused }, "REFUSED"},
		{"another question", DNS{Query: "a.example.com"}, func(m *dnsmessage.Message) { m.Questions[0].Name = name }, "down: the answer is to another question"},
		{"the root", DNS{Answer: "www.example.com"}, func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.NSResource{NS: name}}}
		}, "NOERROR www.example.com."},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := served(t, nameServer(t, false, c.with))
			to.Protocol = service.UDP
			check := c.check
			wants(t, &check, to, c.want)
		})
	}
	to := served(t, func(conn net.Conn) {
		nameServer(t, true, func(*dnsmessage.Message) {})(skipping{conn})
	})
	to.Protocol = service.TCP
	wants(t, &DNS{Query: "www.example.com"}, to, "NOERROR")
	for option, d := range map[string]DNS{"type": {Type: "B"}, "rcode": {Rcode: "BAD"}, "query": {Query: strings.Repeat("a", 300)}} {
		refuses(t, &d, option)
	}
}

// skipping drops the first thing that is written.
type skipping struct{ net.Conn }

func (s skipping) Write(b []byte) (int, error) {
	if len(b) > 2 && b[0] == 0 && b[1] == 1 {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

func TestMySQL(t *testing.T) {
	sha2 := strings.Replace(mysqlHello, "mysql_native_password", "caching_sha2_password", 1)
	denied := "\xff\x15\x04#28000Access denied for user"
	put := func(conn net.Conn, seq byte, payload string) {
		conn.Write(append([]byte{byte(len(payload)), 0, 0, seq}, payload...))
	}
	for _, c := range []struct {
		name  string
		check MySQL
		hello string
		// steps are what the client must say in its packets' ends, and what the server says to it
		steps [][2]string
		want  string
	}{
		{"unknown user", MySQL{}, mysqlHello, [][2]string{{"uvs-check\x00\x00mysql_native_password\x00", denied}}, "8.0.36"},
		{"known user", MySQL{User: "u"}, mysqlHello, [][2]string{{"u\x00\x00mysql_native_password\x00", "\x00\x00\x00\x02\x00\x00\x00"}, {"\x01", ""}}, "8.0.36"},
		{"denied", MySQL{User: "u"}, mysqlHello, [][2]string{{"", denied}}, "down: error 1045: Access denied for user"},
		{"blocked", MySQL{}, "\x10\x00\x00\x00\xff\x69\x04host blocked!!!", nil, "down: error 1129: host blocked"},
		{"native password", MySQL{User: "u", Password: "secret"}, mysqlHello,
			[][2]string{{"\x14\xa3\x4e\xb9\x15", ""}}, "down: no reply to the login"}, // checked below
		{"cached", MySQL{User: "u", Password: "p"}, sha2, [][2]string{{"caching_sha2_password\x00", "\x01\x03"}, {"", "\x00\x00\x00\x02\x00\x00\x00"}}, ""},
		{"not cached", MySQL{User: "u", Password: "p"}, sha2, [][2]string{{"caching_sha2_password\x00", "\x01\x04"}}, "down: the server wants the password itself"},
		{"another method", MySQL{User: "u"}, sha2, [][2]string{{"caching_sha2_password\x00", "\xfemysql_native_password\x0012345678901234567890\x00"}, {"", denied}}, "down: error 1045"},
		{"no TLS", MySQL{Secure: secure("starttls")}, strings.Replace(mysqlHello, "\xff\xff\x08\x02", "\xff\xf7\x08\x02", 1), nil, "down: the server offers no TLS"},
		{"not MySQL", MySQL{}, "SSH-2.0-OpenSSH\r\n", nil, "down: what comes isn't MySQL's protocol"},
	} {
		if c.name == "native password" {
			continue // TestMySQLProofs
		}
		t.Run(c.name, func(t *testing.T) {
			check := c.check
			wants(t, &check, served(t, func(conn net.Conn) {
				io.WriteString(conn, c.hello)
				for i, step := range c.steps {
					if step[0] == "" && i > 0 && step[1] != "" && c.name == "cached" {
						put(conn, byte(2*i+1), step[1]) // it goes on by itself
						continue
					}
					head := read(t, conn, 4)
					said := string(read(t, conn, int(head[0])|int(head[1])<<8))
					if !strings.HasSuffix(said, step[0]) {
						t.Errorf("the client says %q, want %q at its end", said, step[0])
					}
					if step[1] != "" {
						put(conn, head[3]+1, step[1])
					}
				}
				io.Copy(io.Discard, conn)
			}), c.want)
		})
	}
	refuses(t, &MySQL{User: "a\x00"}, "user")
	refuses(t, &MySQL{Secure: secure("yes")}, "tls")
}

func TestPostgres(t *testing.T) {
	message := func(kind byte, text string) string {
		return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(text)))) + text
	}
	fail := func(code, text string) string {
		return message('E', "SFATAL\x00VFATAL\x00C"+code+"\x00M"+text+"\x00\x00")
	}
	in := message('R', "\x00\x00\x00\x00")
	for _, c := range []struct {
		name  string
		check Postgres
		says  string
		want  string
	}{
		{"trusting", Postgres{}, in, "it lets clients log in"},
		{"wants a password", Postgres{User: "u"}, message('R', "\x00\x00\x00\x05salt"), "it lets clients log in"},
		{"nobody known", Postgres{}, fail("28000", "role does not exist"), "it lets clients log in"},
		{"not known", Postgres{User: "u"}, fail("28000", `role "u" does not exist`), `down: FATAL: role "u" does not exist (28000)`},
		{"in", Postgres{User: "u", Database: "d"}, in + message('S', "a\x00b\x00") + message('K', "12345678") + message('Z', "I"), "logged in"},
		{"no database", Postgres{User: "u", Database: "d"}, in + fail("3D000", "no database d"), "down: FATAL: no database d (3D000)"},
		{"starting", Postgres{}, fail("57P03", "the database system is starting up"), "down: FATAL: the database system is starting up (57P03)"},
		{"full", Postgres{}, fail("53300", "too many"), "down: FATAL: too many (53300)"},
		{"not PostgreSQL", Postgres{}, "HTTP/1.1 400 Bad Request\r\n\r\n", "down: the answer isn't PostgreSQL's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := c.check
			wants(t, &check, served(t, func(conn net.Conn) {
				n := binary.BigEndian.Uint32(read(t, conn, 4))
				if said := string(read(t, conn, int(n)-4)); !strings.HasPrefix(said, "\x00\x03\x00\x00user\x00") || !strings.HasSuffix(said, "\x00\x00") {
					t.Errorf("the client says %q", said)
				}
				io.WriteString(conn, c.says)
				io.Copy(io.Discard, conn)
			}), c.want)
		})
	}
	config := testTLS(t)
	wants(t, &Postgres{Secure: secure("starttls")}, served(t, func(conn net.Conn) {
		read(t, conn, 8)
		io.WriteString(conn, "S")
		s := tls.Server(conn, config)
		read(t, s, int(binary.BigEndian.Uint32(read(t, s, 4)))-4)
		io.WriteString(s, in)
		io.Copy(io.Discard, s)
	}), "it lets clients log in")
	refuses(t, &Postgres{User: "a\x00"}, "user")
	refuses(t, &Postgres{Secure: secure("yes")}, "tls")
}

func TestLDAP(t *testing.T) {
	result := func(id, operation, code byte, text string) []byte {
		return ber(berSequence, ber(berInteger, []byte{id}), ber(operation, ber(berEnumerated, []byte{code}), ber(berOctetString), ber(berOctetString, []byte(text))))
	}
	long := []byte("\x30\x84\x00\x00\x00\x10\x02\x01\x02\x61\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00") // as Windows writes lengths
	serve := func(says []byte) *Target {
		return served(t, func(conn net.Conn) {
			head := read(t, conn, 2)
			read(t, conn, int(head[1]))
			conn.Write(says)
			io.Copy(io.Discard, conn)
		})
	}
	for _, c := range []struct {
		name  string
		check LDAP
		says  []byte
		want  string
	}{
		{"anonymous", LDAP{}, result(2, ldapBindResponse, 0, ""), "bound"},
		{"long lengths", LDAP{}, long, "bound"},
		{"wrong password", LDAP{DN: "cn=a", Password: "p"}, result(2, ldapBindResponse, 49, "no"), "down: reply to the bind: result 49 (invalidCredentials) no"},
		{"another message", LDAP{}, result(3, ldapBindResponse, 0, ""), "down: what comes isn't LDAP"},
		{"another operation", LDAP{}, result(2, ldapExtendedResponse, 0, ""), "down: what comes isn't LDAP"},
		{"not LDAP", LDAP{}, []byte("HTTP/1.1 400\r\n"), "down: what comes isn't LDAP"},
		{"no StartTLS", LDAP{Secure: secure("starttls")}, result(1, ldapExtendedResponse, 2, "unsupported"), "down: reply to StartTLS: result 2 (protocolError) unsupported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := c.check
			wants(t, &check, serve(c.says), c.want)
		})
	}
	refuses(t, &LDAP{DN: "cn=a"}, "password")
}

func TestRadius(t *testing.T) {
	// answer is a server's with a secret, to whatever is asked.
	answer := func(secret string, code byte, signed bool, spoil ...int) func(net.Conn) {
		return func(conn net.Conn) {
			q := make([]byte, 4096)
			n, _ := conn.Read(q)
			s := &Radius{Secret: secret}
			a := append([]byte{code, q[1], 0, 0}, q[4:20]...)
			if signed {
				a = radiusAttribute(a, radiusMessageAuthenticator, make([]byte, 16))
			}
			packet.SetWord(a[2:], uint16(len(a)))
			if signed {
				copy(a[22:], s.sum(a))
				for _, at := range spoil {
					a[at]++
				}
			}
			sum := md5Of(a, []byte(secret))
			copy(a[4:20], sum)
			conn.Write([]byte{2, q[1] + 1, 0, 20}) // noise
			conn.Write(a)
			if n < 20 || q[0] != radiusRequest && q[0] != radiusStatusServer {
				t.Errorf("the request is %x", q[:n])
			}
		}
	}
	for _, c := range []struct {
		name  string
		check Radius
		serve func(net.Conn)
		want  string
	}{
		{"accept", Radius{Secret: "s", User: "u", Password: "p"}, answer("s", 2, true), "Access-Accept"},
		{"without authenticator", Radius{Secret: "s", User: "u", Password: "p"}, answer("s", 2, false), "Access-Accept"},
		{"reject", Radius{Secret: "s", User: "u"}, answer("s", 3, true), "down: Access-Reject"},
		{"reject is an answer", Radius{Secret: "s", User: "u", Accept: "any"}, answer("s", 3, true), "Access-Reject"},
		{"status", Radius{Secret: "s"}, answer("s", 2, true), "Access-Accept"},
		{"status of accounting", Radius{Secret: "s"}, answer("s", 5, true), "Accounting-Response"},
		{"authenticator of another", Radius{Secret: "s"}, answer("s", 2, true, 22), "down: the answer was made with another secret"},
		{"another secret", Radius{Secret: "s"}, answer("t", 2, true), "down: the answer was made with another secret"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := c.check
			wants(t, &check, served(t, c.serve), c.want)
		})
	}
	for option, r := range map[string]Radius{"secret": {}, "accept": {Secret: "s", Accept: "x"}, "password": {Secret: "s", Password: strings.Repeat("x", 129)}} {
		refuses(t, &r, option)
	}
}

// The password of RFC 2865 section 7.1's example, with its authenticator and secret.
func TestRadiusHidesPasswords(t *testing.T) {
	r := &Radius{Secret: "xyzzy5461", Password: "arctangent"}
	authenticator := []byte{0x0f, 0x40, 0x3f, 0x94, 0x73, 0x97, 0x80, 0x57, 0xbd, 0x83, 0xd5, 0xcb, 0x98, 0xf4, 0x22, 0x7a}
	want := []byte{0x0d, 0xbe, 0x70, 0x8d, 0x93, 0xd4, 0x13, 0xce, 0x31, 0x96, 0xe4, 0x3f, 0x78, 0x2a, 0x0a, 0xee}
	if got := r.hide(authenticator); !bytes.Equal(got, want) {
		t.Errorf("hide() = %x, want %x", got, want)
	}
}

func TestSIP(t *testing.T) {
	// ua answers OPTIONS, with status lines in this order.
	ua := func(t *testing.T, statuses ...string) func(net.Conn) {
		return func(conn net.Conn) {
			q := make([]byte, 4096)
			n, _ := conn.Read(q)
			said := string(q[:n])
			_, rest, ok := strings.Cut(said, "Call-ID: ")
			call, _, _ := strings.Cut(rest, "\r\n")
			if !ok || !strings.HasPrefix(said, "OPTIONS sip:192.0.2.11:7 SIP/2.0\r\n") || !strings.HasSuffix(said, "\r\n\r\n") {
				t.Errorf("the client says %q", said)
			}
			conn.Write([]byte("SIP/2.0 200 OK\r\nCall-ID: another\r\nContent-Length: 2\r\n\r\nhi"))
			for _, s := range statuses {
				conn.Write([]byte("SIP/2.0 " + s + "\r\ni: " + call + "\r\nl: 0\r\n\r\n"))
			}
			io.Copy(io.Discard, conn)
		}
	}
	for _, c := range []struct {
		name     string
		check    SIP
		statuses []string
		want     string
	}{
		{"answers", SIP{}, []string{"200 OK"}, "200 OK"},
		{"tries first", SIP{}, []string{"100 Trying", "200 OK"}, "200 OK"},
		{"busy", SIP{}, []string{"503 Service Unavailable"}, "down: status 503 Service Unavailable, not 200"},
		{"as expected", SIP{Status: "200,404"}, []string{"404 Not Found"}, "404 Not Found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := c.check
			to := served(t, ua(t, c.statuses...))
			to.Protocol = service.TCP
			wants(t, &check, to, c.want)
		})
	}
	wants(t, &SIP{}, served(t, func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
	}), "down: the answer isn't SIP")
	for option, s := range map[string]SIP{"uri": {URI: "a b"}, "status": {Status: "2000"}, "tls": {Secure: secure("starttls")}} {
		refuses(t, &s, option)
	}
}
