package health

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"uvs/service"
)

// The benchmarks have a server in the same process, so what they measure is a check and the server's answer together. With
// -cpu 1 both have one core.

// listening has a server of TCP on the loopback interface.
func listening(b *testing.B, serve func(net.Conn)) *Target {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	to := at(ln.Addr().String())
	to.Protocol = service.TCP
	return to
}

// saying is a server that says its lines one by one, each when the client has said something.
func saying(b *testing.B, greeting string, replies ...string) *Target {
	return listening(b, func(conn net.Conn) {
		io.WriteString(conn, greeting)
		buf := make([]byte, 4096)
		for _, r := range replies {
			if _, err := conn.Read(buf); err != nil {
				return
			}
			io.WriteString(conn, r)
		}
		conn.Read(buf)
	})
}

// answering is a server of UDP.
func answering(b *testing.B, answer func(q []byte) []byte) *Target {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	go func() {
		q := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(q)
			if err != nil {
				return
			}
			conn.WriteToUDPAddrPort(answer(q[:n]), from)
		}
	}()
	to := at(conn.LocalAddr().String())
	to.Protocol = service.UDP
	return to
}

func BenchmarkHTTP(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(web))
	defer s.Close()
	benchmark(b, &HTTP{Contains: "is up"}, at(s.Listener.Addr().String()))
}

func BenchmarkHTTPS(b *testing.B) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(web))
	s.TLS = &tls.Config{Certificates: ecdsaTLS(b).Certificates}
	s.StartTLS()
	defer s.Close()
	benchmark(b, &HTTPS{}, at(s.Listener.Addr().String()))
}

// ecdsaTLS is a TLS server's configuration with the kind of key that most have.
func ecdsaTLS(b *testing.B) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func BenchmarkHTTP2(b *testing.B) {
	s := &http.Server{Handler: http.HandlerFunc(web), Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	benchmark(b, &HTTP{Version: "2"}, at(ln.Addr().String()))
}

func BenchmarkGRPC(b *testing.B) {
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		io.WriteString(w, "\x00\x00\x00\x00\x02\x08\x01")
		w.Header().Set("Grpc-Status", "0")
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve(ln)
	defer s.Close()
	benchmark(b, &GRPC{}, at(ln.Addr().String()))
}

func BenchmarkTCP(b *testing.B) { benchmark(b, &TCP{}, saying(b, "")) }

func BenchmarkSMTP(b *testing.B) {
	benchmark(b, &SMTP{}, saying(b, "220 mx ESMTP\r\n", "250-mx\r\n250 HELP\r\n", "221 bye\r\n"))
}

func BenchmarkFTP(b *testing.B) {
	benchmark(b, &FTP{}, saying(b, "220 ready\r\n", "331 password\r\n", "230 in\r\n", "221 bye\r\n"))
}

func BenchmarkPOP3(b *testing.B) { benchmark(b, &POP3{}, saying(b, "+OK ready\r\n", "+OK bye\r\n")) }

func BenchmarkIMAP(b *testing.B) {
	benchmark(b, &IMAP{}, saying(b, "* OK ready\r\n", "* BYE\r\na3 OK bye\r\n"))
}

func BenchmarkExpect(b *testing.B) {
	benchmark(b, &Expect{Send: "PING", Expect: "+PONG"}, saying(b, "", "+PONG\r\n"))
}

func BenchmarkMySQL(b *testing.B) {
	benchmark(b, &MySQL{User: "u", Password: "p"}, saying(b, mysqlHello, "\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"))
}

func BenchmarkPostgres(b *testing.B) {
	benchmark(b, &Postgres{}, listening(b, func(conn net.Conn) {
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head))-4)
		io.WriteString(conn, "R\x00\x00\x00\x08\x00\x00\x00\x00")
		conn.Read(head)
	}))
}

func BenchmarkLDAP(b *testing.B) {
	benchmark(b, &LDAP{}, saying(b, "", "\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00\x04\x00\x04\x00"))
}

func BenchmarkUDP(b *testing.B) {
	benchmark(b, &UDP{Request: "ping", Expect: "ping"}, answering(b, func(q []byte) []byte { return q }))
}

func BenchmarkDNS(b *testing.B) {
	benchmark(b, &DNS{Query: "www.example.com"}, answering(b, func(q []byte) []byte {
		var p dnsmessage.Parser
		if _, err := p.Start(q); err != nil {
			return nil
		}
		q[2] |= 0x80
		return q
	}))
}

func BenchmarkRadius(b *testing.B) {
	benchmark(b, &Radius{Secret: "s", User: "u", Password: "p"}, answering(b, func(q []byte) []byte {
		a := append([]byte{radiusAccept, q[1], 0, 20}, q[4:20]...)
		copy(a[4:], md5Of(a, []byte("s")))
		return a
	}))
}

func BenchmarkSIP(b *testing.B) {
	benchmark(b, &SIP{}, answering(b, func(q []byte) []byte {
		_, rest, _ := bytes.Cut(q, []byte("Call-ID: "))
		call, _, _ := bytes.Cut(rest, []byte("\r\n"))
		return append(append([]byte("SIP/2.0 200 OK\r\nCall-ID: "), call...), "\r\nContent-Length: 0\r\n\r\n"...)
	}))
}

func BenchmarkICMP(b *testing.B) {
	benchmark(b, &ICMP{pinger: own(b, 20*time.Millisecond)}, host("127.0.0.1"))
}

func BenchmarkExec(b *testing.B) { benchmark(b, &Exec{Command: "/bin/true"}, at("127.0.0.1:80")) }
