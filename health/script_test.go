package health

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// dialogue is what a server of lines says: what to lines that begin with what. The line "" is its greeting, said unasked.
type dialogue [][2]string

// serve answers line by line. A client that says what isn't in the dialogue is told so; QUIT and the like end it unanswered.
func (d dialogue) serve(t *testing.T, conn net.Conn) {
	if d[0][1] != "" {
		io.WriteString(conn, d[0][1])
	}
	rest := d[1:]
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if err != nil || line == "QUIT" || line == "a3 LOGOUT" {
			return
		}
		if len(rest) == 0 || !strings.HasPrefix(line, rest[0][0]) {
			t.Errorf("the client says %q, want of %q", line, rest)
			return
		}
		io.WriteString(conn, rest[0][1])
		rest = rest[1:]
	}
}

func TestProtocolsOfLines(t *testing.T) {
	for _, c := range []struct {
		name  string
		check Prober
		dialogue
		want string
	}{
		{"smtp", &SMTP{Hello: "lb.example.com"}, dialogue{{"", "220 mx ESMTP\r\n"}, {"EHLO lb.example.com", "250-mx\r\n250-SIZE 1\r\n250 HELP\r\n"}}, "220 mx ESMTP"},
		{"smtp, many lines", &SMTP{}, dialogue{{"", "220-mx\r\n220 hello\r\n"}, {"EHLO uvs.invalid", "250\r\n"}}, "220-mx"},
		{"smtp, too busy", &SMTP{}, dialogue{{"", "421 too many connections\r\n"}}, "down: greeting: 421 too many connections"},
		{"smtp, refused", &SMTP{}, dialogue{{"", "220 mx\r\n"}, {"EHLO ", "550 go away\r\n"}}, "down: reply to EHLO: 550 go away"},
		{"smtp, no TLS", &SMTP{Secure: secure("starttls")}, dialogue{{"", "220 mx\r\n"}, {"EHLO ", "250 mx\r\n"}, {"STARTTLS", "502 no\r\n"}}, "down: reply to STARTTLS: 502 no"},
		{"smtp, injected", &SMTP{Secure: secure("starttls")}, dialogue{{"", "220 mx\r\n"}, {"EHLO ", "250 mx\r\n"}, {"STARTTLS", "220 go\r\n250 mx\r\n"}}, "down: the server speaks before TLS begins"},
		{"smtp, another protocol", &SMTP{}, dialogue{{"", "SSH-2.0-OpenSSH_9.2\r\n"}}, `down: no greeting, but "SSH-2.0-OpenSSH_9.2"`},
		{"ftp", &FTP{}, dialogue{{"", "220-hello\r\nand\r\n 220 more\r\n220 ready\r\n"}, {"USER anonymous", "331 password\r\n"}, {"PASS uvs@", "230 in\r\n"}}, "230 in"},
		{"ftp, no password", &FTP{User: "u"}, dialogue{{"", "220 ready\r\n"}, {"USER u", "230 in\r\n"}}, "230 in"},
		{"ftp, wrong password", &FTP{User: "u", Password: "secret"}, dialogue{{"", "220 ready\r\n"}, {"USER u", "331 password\r\n"}, {"PASS secret", "530 no\r\n"}}, "down: reply to PASS: 530 no"},
		{"pop3", &POP3{}, dialogue{{"", "+OK ready <1@x>\r\n"}}, "+OK ready <1@x>"},
		{"pop3, login", &POP3{User: "u", Password: "p q"}, dialogue{{"", "+OK\r\n"}, {"USER u", "+OK\r\n"}, {"PASS p q", "+OK in\r\n"}}, "+OK"},
		{"pop3, wrong password", &POP3{User: "u", Password: "p"}, dialogue{{"", "+OK\r\n"}, {"USER u", "+OK\r\n"}, {"PASS p", "-ERR no\r\n"}}, `down: reply to PASS: "-ERR no"`},
		{"imap", &IMAP{}, dialogue{{"", "* OK [CAPABILITY IMAP4rev1] ready\r\n"}}, "* OK [CAPABILITY"},
		{"imap, login", &IMAP{User: `u"`, Password: `p\`}, dialogue{{"", "* OK ready\r\n"}, {`a2 LOGIN "u\"" "p\\"`, "* CAPABILITY IMAP4rev1\r\na2 OK in\r\n"}}, "* OK ready"},
		{"imap, wrong password", &IMAP{User: "u"}, dialogue{{"", "* OK ready\r\n"}, {"a2 LOGIN", "a2 NO no\r\n"}}, `down: reply to LOGIN: "NO no"`},
		{"imap, goes", &IMAP{User: "u"}, dialogue{{"", "* OK ready\r\n"}, {"a2 LOGIN", "* BYE shutting down\r\n"}}, "down: BYE shutting down"},
		{"imap, full", &IMAP{}, dialogue{{"", "* BYE too many\r\n"}}, `down: greeting: "* BYE too many"`},
		{"expect", &Expect{Send: `HELO\r\n`, Expect: "+PONG"}, dialogue{{"", ""}, {"HELO", "+PONG\r\n"}}, "+PONG"},
		{"expect, anything", &Expect{Expect: "*"}, dialogue{{"", "x"}}, "x"},
		{"expect, anything by default", &Expect{}, dialogue{{"", "x"}}, "x"},
		{"expect, bytes", &Expect{Expect: `\x00\xff`}, dialogue{{"", "\x00\xffrest"}}, "."},
		{"expect, another", &Expect{Expect: "220 "}, dialogue{{"", "421 no"}}, `down: the answer is "421 no"`},
		{"expect, expression", &Expect{Match: `up=\d+`, Expect: "status "}, dialogue{{"", "status up=7"}}, "status up=7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wants(t, c.check, served(t, func(conn net.Conn) { c.serve(t, conn) }), c.want)
		})
	}
	for option, p := range map[string]Prober{
		"hello": &SMTP{Hello: "a\r\nMAIL"}, "user": &FTP{User: "a\nb"}, "password": &POP3{Password: "\r"}, "tls": &IMAP{Secure: secure("maybe")},
		"send": &Expect{Send: `\q`}, "expect": &Expect{Expect: `\x1`}, "match": &Expect{Match: "["},
	} {
		refuses(t, p, option)
	}
	refuses(t, &Expect{Secure: secure("starttls")}, "tls")
	refuses(t, &SMTP{Secure: Secure{TLSOptions: TLSOptions{SNI: "x"}}}, "tls")
}

// TestStartTLS has each protocol's own way into TLS, with a server that is what it says.
func TestStartTLS(t *testing.T) {
	config := testTLS(t)
	for name, c := range map[string]struct {
		check         Prober
		before, after dialogue // of the server; before's greeting comes plain, after has none
	}{
		"smtp":                {&SMTP{Secure: secure("starttls")}, dialogue{{"", "220 mx\r\n"}, {"EHLO", "250 mx\r\n"}, {"STARTTLS", "220 go\r\n"}}, dialogue{{"", ""}, {"EHLO", "250 mx\r\n"}}},
		"ftp":                 {&FTP{Secure: secure("starttls")}, dialogue{{"", "220 ready\r\n"}, {"AUTH TLS", "234 go\r\n"}}, dialogue{{"", ""}, {"USER", "230 in\r\n"}}},
		"pop3":                {&POP3{User: "u", Secure: secure("starttls")}, dialogue{{"", "+OK\r\n"}, {"STLS", "+OK\r\n"}}, dialogue{{"", ""}, {"USER", "+OK\r\n"}, {"PASS", "+OK\r\n"}}},
		"imap":                {&IMAP{User: "u", Secure: secure("starttls")}, dialogue{{"", "* OK\r\n"}, {"a1 STARTTLS", "a1 OK go\r\n"}}, dialogue{{"", ""}, {"a2 LOGIN", "a2 OK\r\n"}}},
		"from the first byte": {&SMTP{Secure: secure("yes")}, nil, dialogue{{"", "220 mx\r\n"}, {"EHLO", "250 mx\r\n"}}},
	} {
		t.Run(name, func(t *testing.T) {
			wants(t, c.check, served(t, func(conn net.Conn) {
				if c.before != nil {
					io.WriteString(conn, c.before[0][1])
					r := bufio.NewReader(conn)
					for _, step := range c.before[1:] {
						if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, step[0]) {
							t.Errorf("the client says %q, %v; want %q", line, err, step[0])
							return
						}
						io.WriteString(conn, step[1])
					}
				}
				c.after.serve(t, tlsServer(conn, config))
			}), "")
		})
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("220 hello\r\n"))
	f.Add([]byte("220-hello\r\n220 more\r\n"))
	f.Add([]byte("250-\n250\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		said := string(b)
		if code, text, err := told(b).reply("reply"); err == nil && (code < 100 || code > 599 || !strings.HasPrefix(said, text[:3])) {
			t.Errorf("%q is read as %d %q", said, code, text)
		}
	})
}

// told is a conversation with a server that says b and no more.
func told(b []byte) *talk {
	t := &talk{to: &Target{}, conn: reading{r: bytes.NewReader(b)}, left: talkBytes}
	t.r = bufio.NewReader(t)
	return t
}

// reading is a connection that only reads.
type reading struct {
	net.Conn
	r io.Reader
}

func (c reading) Read(b []byte) (int, error) { return c.r.Read(b) }
