package health

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"uvs/service"
)

// victim is a check as hostile servers meet it.
type victim struct {
	name  string
	check func() Prober
	proto service.Proto
	// good is how a server begins that is all right, and more what it could go on with for ever.
	good, more string
	// content says that the server sends good although it wasn't asked, and more is harmless: the probe may succeed.
	content bool
}

func secure(how string) Secure { return Secure{TLS: how} }

// h2 is a frame of HTTP/2 (RFC 9113 section 4.1).
func h2(kind, flags byte, stream uint32, payload string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))[1:]
	b = binary.BigEndian.AppendUint32(append(b, kind, flags), stream)
	return string(b) + payload
}

// h2Head is a server's settings, and the head of an answer: 200, application/grpc.
var h2Head = h2(4, 0, 0, "") + h2(1, 4, 1, "\x88\x0f\x10\x10application/grpc")

// dnsHead is the beginning of an answer with one question for the root's NS, whatever its number is.
const dnsHead = "\x00\x00\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"

var victims = []victim{
	{name: "tcp", check: func() Prober { return &TCP{} }, content: true},
	{name: "udp", check: func() Prober { return &UDP{Request: "hello", Match: "^hello$"} }, proto: service.UDP, good: "hell", more: "hell"},
	{name: "latency", check: func() Prober { return &Latency{} }, content: true},
	{name: "agent", check: func() Prober { return &AgentCheck{Required: true} }, good: "5", more: "5"},
	{name: "snmp", check: func() Prober { return &SNMP{Required: true} }, proto: service.UDP, good: "\x30\x82\x01\x00\x02\x01\x01", more: "\x30\x82\x01\x00\x02\x01\x01"},
	{name: "http", check: func() Prober { return &HTTP{} }, good: "HTTP/1.1 200 OK\r\n", more: "A: b\r\n"},
	{name: "http", check: func() Prober { return &HTTP{} }, good: "HTTP/1.1 200 OK\r\n", more: strings.Repeat("A", 9999)},
	{name: "http", check: func() Prober { return &HTTP{} }, good: "HTTP/1.1 200 OK\r\n\r\n", more: "body", content: true},
	{name: "http", check: func() Prober { return &HTTP{Contains: "!"} }, good: "HTTP/1.1 200 OK\r\n\r\n", more: "body"},
	{name: "http", check: func() Prober { return &HTTP{Match: "(a|ab)*!$"} }, good: "HTTP/1.1 200 OK\r\n\r\n", more: "ab"},
	{name: "http", check: func() Prober { return &HTTP{Digest: strings.Repeat("0", 32)} }, good: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", more: "1\r\nx\r\n"},
	{name: "http", check: func() Prober { return &HTTP{Contains: "!"} }, good: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", more: "1;" + strings.Repeat("e", 4000) + "\r\nx\r\n"},
	{name: "http", check: func() Prober { return &HTTP{} }, good: "HTTP/1.1 100 Continue\r\n\r\n", more: "HTTP/1.1 100 Continue\r\n\r\n"},
	{name: "http", check: func() Prober { return &HTTP{Version: "2"} }, good: h2(4, 0, 0, ""), more: h2(6, 0, 0, "pingping")},
	{name: "http", check: func() Prober { return &HTTP{Version: "2"} }, good: h2(4, 0, 0, ""), more: h2(4, 0, 0, "")},
	{name: "http", check: func() Prober { return &HTTP{Version: "2"} }, good: h2(4, 0, 0, "") + h2(1, 0, 1, "\x88"), more: h2(9, 0, 1, strings.Repeat("\x00\x01a\x01b", 99))},
	{name: "http", check: func() Prober { return &HTTP{Version: "2", Contains: "!"} }, good: h2Head, more: h2(0, 0, 1, strings.Repeat("x", 16000))},
	{name: "https", check: func() Prober { return &HTTPS{} }, good: "\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", more: "\x00"},
	{name: "https", check: func() Prober { return &HTTPS{HTTP: HTTP{Version: "2"}} }, good: "\x15\x03\x03\x00\x02\x01\x00", more: "\x15\x03\x03\x00\x02\x01\x00"},
	{name: "smtp", check: func() Prober { return &SMTP{} }, good: "220 mail\r\n250-mail\r\n", more: "250-SIZE\r\n"},
	{name: "smtp", check: func() Prober { return &SMTP{Secure: secure("starttls")} }, good: "220 mail\r\n250 mail\r\n220 go\r\n\x16\x03", more: "\x03"},
	{name: "smtp", check: func() Prober { return &SMTP{Secure: secure("yes")} }, good: "\x16\x03\x03\x40\x00\x02", more: "\x00"},
	{name: "ftp", check: func() Prober { return &FTP{} }, good: "220-hello\r\n", more: "220-hello\r\n"},
	{name: "ftp", check: func() Prober { return &FTP{Secure: secure("starttls")} }, good: "220 hello\r\n234 go\r\n", more: strings.Repeat("x", 9999)},
	{name: "pop3", check: func() Prober { return &POP3{User: "u"} }, good: "+OK\r\n+OK", more: "+OK"},
	{name: "pop3", check: func() Prober { return &POP3{Secure: secure("starttls")} }, good: "+OK\r\n+OK\r\n", more: "\x16\x03\x03"},
	{name: "imap", check: func() Prober { return &IMAP{User: "u"} }, good: "* OK hello\r\n", more: "* 1 EXISTS\r\n"},
	{name: "imap", check: func() Prober { return &IMAP{Secure: secure("starttls")} }, good: "* OK hello\r\na1 OK go\r\n", more: "\x17\x03\x03\x00\x00"},
	{name: "dns", check: func() Prober { return &DNS{Answer: "192.0.2.1"} }, proto: service.UDP, good: dnsHead, more: dnsHead},
	{name: "dns", check: func() Prober { return &DNS{} }, proto: service.TCP, good: "\x00\x11" + dnsHead, more: "\x00\x11" + dnsHead},
	{name: "mysql", check: func() Prober { return &MySQL{} }, good: "\x00\x08\x00\x00", more: "\x0a"},
	{name: "mysql", check: func() Prober { return &MySQL{} }, good: mysqlHello, more: "\x02\x00\x00\x02\x01\x03"},
	{name: "mysql", check: func() Prober { return &MySQL{Secure: secure("starttls")} }, good: mysqlHello, more: "\x16\x03\x03\x40\x00"},
	{name: "postgres", check: func() Prober { return &Postgres{User: "u"} }, good: "R\x00\x00\x00\x08\x00\x00\x00\x00", more: "N\x00\x00\x00\x05\x00"},
	{name: "postgres", check: func() Prober { return &Postgres{Secure: secure("starttls")} }, good: "S", more: "\x16\x03\x03\x40\x00"},
	{name: "ldap", check: func() Prober { return &LDAP{} }, good: "\x30\x84\x00\x00\x3f\xff", more: "\x02\x01\x02"},
	{name: "ldap", check: func() Prober { return &LDAP{Secure: secure("starttls")} }, good: "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00", more: "\x16"},
	{name: "radius", check: func() Prober { return &Radius{Secret: "s"} }, proto: service.UDP, good: strings.Repeat("\x02\x00\x00\x14", 5), more: strings.Repeat("\x02\x00\x00\x14", 5)},
	{name: "sip", check: func() Prober { return &SIP{} }, proto: service.UDP, good: "SIP/2.0 100 Trying\r\n\r\n", more: "SIP/2.0 100 Trying\r\n\r\n"},
	{name: "sip", check: func() Prober { return &SIP{} }, proto: service.TCP, good: "SIP/2.0 200 OK\r\nl: 65000\r\n", more: "Via: x\r\n"},
	{name: "expect", check: func() Prober { return &Expect{Expect: "hello"} }, good: "hell", more: "oh"[1:]},
	{name: "expect", check: func() Prober { return &Expect{Match: "ab!$", Send: "x"} }, good: "ab", more: "ab"},
	{name: "expect", check: func() Prober { return &Expect{Secure: secure("yes")} }, good: "\x16\x03\x03\x40\x00\x02", more: "\x00"},
	{name: "grpc", check: func() Prober { return &GRPC{} }, good: h2Head, more: h2(0, 0, 1, strings.Repeat("x", 100))},
	{name: "grpc", check: func() Prober { return &GRPC{Secure: secure("yes")} }, good: "\x16\x03\x03\x40\x00\x02", more: "\x00"},
}

// ownHostileTests are the kinds that use no connection, so that their servers can be hostile in other ways alone.
var ownHostileTests = map[string]bool{"arp": true, "icmp": true, "exec": true, "file": true}

// mysqlHello is the greeting of a server of MySQL.
const mysqlHello = "\x4a\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x0012345678\x00\xff\xff\x08\x02\x00\xff\xff\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00123456789012\x00mysql_native_password\x00"

// flood writes a piece for ever.
func flood(w io.Writer, piece string) {
	b := []byte(piece)
	for len(b) > 0 && len(b) < 4096 {
		b = append(b, piece...)
	}
	for {
		if _, err := w.Write(b); err != nil || len(b) == 0 {
			return
		}
	}
}

// drip writes a byte a second, good first and then more again and again.
func drip(w io.Writer, good, more string) {
	for i := 0; i < len(good) || more != ""; i++ {
		if i == len(good) {
			good, i = more, 0
		}
		if _, err := io.WriteString(w, good[i:i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// hostility is what a server does that means no good, in the words of the issue.
var hostility = map[string]func(v *victim, conn net.Conn){
	"says nothing": func(_ *victim, conn net.Conn) { io.Copy(io.Discard, conn) },
	"reads nothing": func(_ *victim, conn net.Conn) {
		conn.Write(nil)
		time.Sleep(time.Minute)
	},
	"closes at once": func(*victim, net.Conn) {},
	"closes after the question": func(_ *victim, conn net.Conn) {
		conn.Read(make([]byte, 4096))
	},
	"closes in the middle": func(v *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		io.WriteString(conn, v.good)
	},
	"stops in the middle": func(v *victim, conn net.Conn) {
		go io.WriteString(conn, v.good)
		io.Copy(io.Discard, conn)
	},
	"garbage": func(_ *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		b := make([]byte, 4096)
		r := rand.NewChaCha8([32]byte{7})
		for {
			r.Read(b)
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	},
	"zeros": func(_ *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		flood(conn, "\x00")
	},
	"empty lines": func(_ *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		flood(conn, "\r\n")
	},
	"a byte a second": func(v *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		drip(conn, v.good, v.more)
	},
	"then a byte a second": func(v *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		io.WriteString(conn, v.good)
		drip(conn, v.more, v.more)
	},
	"without end": func(v *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		io.WriteString(conn, v.good)
		flood(conn, v.more)
	},
	"a TLS handshake that never ends": func(_ *victim, conn net.Conn) {
		go io.Copy(io.Discard, conn)
		for _, err := io.WriteString(conn, "\x16\x03\x03\x00\x01\x02"); err == nil; { // server hello, by bytes
			time.Sleep(time.Second)
			_, err = io.WriteString(conn, "\x16\x03\x03\x00\x01\x00")
		}
	},
}

// resetting is a connection that the server has reset.
type resetting struct{ net.Conn }

func (resetting) Read([]byte) (int, error) {
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
}

func (resetting) Write(b []byte) (int, error) { return len(b), nil }

// Whatever a server does, a probe ends with its time, holds little memory, leaves no goroutine behind, which synctest sees, and
// comes to no wrong result.
func TestHostileServers(t *testing.T) {
	const timeout = 10 * time.Second
	const bound = 2 << 20 // bytes allocated, most of them freed meanwhile
	tested := map[string]bool{}
	for _, v := range victims {
		tested[v.name] = true
		hostility["resets"] = func(*victim, net.Conn) {}
		for what, serve := range hostility {
			t.Run(v.name+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := prepared(t, v.check())
					var servers sync.WaitGroup
					defer servers.Wait()
					server := netip.MustParseAddrPort("192.0.2.11:7")
					to := &Target{Server: server, Address: server, Protocol: v.proto, Dial: func(context.Context, string) (net.Conn, error) {
						here, there := net.Pipe()
						servers.Go(func() {
							defer there.Close()
							serve(&v, there)
						})
						if what == "resets" {
							return resetting{here}, nil
						}
						return here, nil
					}}
					ctx, cancel := context.WithTimeout(t.Context(), timeout)
					defer cancel()
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					began := time.Now()
					said, err := p.Probe(ctx, to)
					took := time.Since(began)
					runtime.ReadMemStats(&after)
					if took > timeout+time.Second {
						t.Errorf("it took %v", took)
					}
					if n := after.TotalAlloc - before.TotalAlloc; n > bound {
						t.Errorf("it allocated %d bytes", n)
					}
					if err == nil && !v.content {
						t.Errorf("Probe() = %q, nil", said)
					}
					if err != nil && (err.Error() == "" || strings.Contains(err.Error(), "192.0.2") || len(err.Error()) > 1200) {
						t.Errorf("the reason is %q", err)
					}
				})
			})
		}
	}
	for _, kind := range Kinds() {
		if !tested[kind] && !ownHostileTests[kind] {
			t.Errorf("no hostile server was tried on kind %s", kind)
		}
	}
}
