package health

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const page = "<html>uvs is up, 7 of 7 disks</html>\n"

// web answers as the path says.
func web(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/moved":
		http.Redirect(w, r, "/", http.StatusFound)
	case "/broken":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "/short":
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, "that was all")
	case "/long":
		for range 1000 {
			io.WriteString(w, strings.Repeat("x", 1000))
		}
	case "/asked": // what the server sees
		data, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		names := ""
		if r.TLS != nil {
			names = fmt.Sprintf("sni=%s certificates=%d", r.TLS.ServerName, len(r.TLS.PeerCertificates))
		}
		fmt.Fprintf(w, "%s %s %s host=%s check=%s user=%s:%s data=%s %s", r.Method, r.RequestURI, r.Proto, r.Host, r.Header.Get("X-Check"), user, password, data, names)
	default:
		io.WriteString(w, page)
	}
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(web))
	defer s.Close()
	host := s.Listener.Addr().String()
	for _, c := range []struct {
		name  string
		check HTTP
		want  string
	}{
		{"by default", HTTP{}, "200 OK"},
		{"a redirection is good and not followed", HTTP{Path: "/moved"}, "302 Found"},
		{"unless it isn't", HTTP{Path: "/moved", Status: "200-299"}, "down: status 302 Found, not 200-299"},
		{"of several", HTTP{Path: "/broken", Status: "200, 500-503"}, "503 Service Unavailable"},
		{"status", HTTP{Path: "/broken"}, "down: status 503 Service Unavailable, not 200-399"},
		{"text", HTTP{Contains: "is up"}, "200 OK"},
		{"no such text", HTTP{Contains: "is down"}, `down: 200 OK, but "is down" isn't in the body`},
		{"expression", HTTP{Match: `(\d) of \d+ disks`}, "200 OK"},
		{"no match", HTTP{Match: `^uvs`}, `down: doesn't match "^uvs"`},
		{"MD5", HTTP{Digest: fmt.Sprintf("%X", md5.Sum([]byte(page)))}, "200 OK"},
		{"SHA-256", HTTP{Digest: fmt.Sprintf("%x", sha256.Sum256([]byte(page)))}, "200 OK"},
		{"another body", HTTP{Path: "/moved", Digest: fmt.Sprintf("%x", md5.Sum([]byte(page)))}, "down: the body's digest is"},
		{"HEAD", HTTP{Method: "HEAD"}, "200 OK"},
		{"body cut short", HTTP{Path: "/short"}, "down: its body is cut short: the server closed the connection"},
		{"a long body will do", HTTP{Path: "/long"}, "200 OK"},
		{"but for its digest", HTTP{Path: "/long", Digest: strings.Repeat("0", 32)}, "down: longer than 65536 bytes"},
		{"a long body whole", HTTP{Path: "/long", MaxBody: 1 << 20, Digest: fmt.Sprintf("%x", md5.Sum([]byte(strings.Repeat("x", 1_000_000))))}, "200 OK"},
		{"as long as is allowed", HTTP{MaxBody: int64(len(page)), Digest: fmt.Sprintf("%x", md5.Sum([]byte(page)))}, "200 OK"},
		{"the request", HTTP{Method: "POST", Path: "/asked?a=b", Host: "www.example.com", Headers: []string{"X-Check: uvs "}, User: "u", Password: "p", Data: "hello",
			Match: `^POST /asked\?a=b HTTP/1.1 host=www.example.com check=uvs user=u:p data=hello $`}, "200 OK"},
		{"HTTP/1.0 and the host by default", HTTP{Path: "/asked", Version: "1.0", Contains: "GET /asked HTTP/1.0 host=" + host + " "}, "200 OK"},
	} {
		t.Run(c.name, func(t *testing.T) { wants(t, &c.check, at(host), c.want) })
	}
	for option, c := range map[string]HTTP{
		"path": {Path: "index.html"}, "method": {Method: "GET /"}, "host": {Host: "a b"}, "headers": {Headers: []string{"X-Check"}}, "version": {Version: "3"},
		"status": {Status: "200-"}, "match": {Match: "("}, "digest": {Digest: "abcd"}, "max_body": {MaxBody: -1},
	} {
		refuses(t, &c, option)
	}
	refuses(t, &HTTP{Headers: []string{"X: a\r\nY: b"}}, "headers")
}

// pemFiles has the test server's certificate, and that as a client's with its key.
func pemFiles(t *testing.T, s *httptest.Server) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(web))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	cert, key := pemFiles(t, s) // for example.com
	host := s.Listener.Addr().String()
	plain := httptest.NewServer(http.HandlerFunc(web))
	defer plain.Close()
	for _, c := range []struct {
		name  string
		check HTTPS
		want  string
	}{
		{"by default", HTTPS{}, "200 OK"},
		{"the host's name", HTTPS{HTTP: HTTP{Path: "/asked", Host: "www.example.com:443", Contains: "host=www.example.com:443 check= user=: data= sni=www.example.com certificates=0"}}, "200 OK"},
		{"no name", HTTPS{HTTP: HTTP{Path: "/asked", Host: "192.0.2.1", Contains: " sni= "}}, "200 OK"},
		{"verified", HTTPS{TLSOptions: TLSOptions{SNI: "example.com", Verify: true, CA: cert}}, "200 OK"},
		{"another name", HTTPS{TLSOptions: TLSOptions{SNI: "example.net", Verify: true, CA: cert}}, "down: TLS handshake: tls: failed to verify certificate"},
		{"unknown authority", HTTPS{HTTP: HTTP{Host: "example.com"}, TLSOptions: TLSOptions{Verify: true}}, "down: unknown authority"},
		{"client certificate", HTTPS{HTTP: HTTP{Path: "/asked", Contains: "certificates=1"}, TLSOptions: TLSOptions{Cert: cert, Key: key}}, "200 OK"},
		{"HTTP/2", HTTPS{HTTP: HTTP{Path: "/asked?a=b", Version: "2", Host: "www.example.com", Method: "PUT", Data: "hello", Headers: []string{"X-Check: 2"},
			Contains: "PUT /asked?a=b HTTP/2.0 host=www.example.com check=2 user=: data=hello sni=www.example.com"}}, "200 OK"},
		{"HTTP/2's status", HTTPS{HTTP: HTTP{Path: "/broken", Version: "2"}}, "down: status 503 Service Unavailable"},
		{"HTTP/2, a long body", HTTPS{HTTP: HTTP{Path: "/long", Version: "2"}}, "200 OK"},
	} {
		t.Run(c.name, func(t *testing.T) { wants(t, &c.check, at(host), c.want) })
	}
	wants(t, &HTTPS{}, at(plain.Listener.Addr().String()), "down: TLS handshake")
	wants(t, &HTTP{}, at(host), "down: status 400")
	for option, o := range map[string]TLSOptions{"verify": {Verify: true}, "ca": {CA: key}, "cert": {Cert: cert}, "key": {Key: key}} {
		refuses(t, &HTTPS{TLSOptions: o}, option)
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(web), Protocols: new(http.Protocols)}
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(ln)
	defer s.Close()
	wants(t, &HTTP{Version: "2", Path: "/asked", Contains: "HTTP/2.0"}, at(ln.Addr().String()), "200 OK")
	wants(t, &HTTP{Version: "1.1"}, at(ln.Addr().String()), "down: no answer")
}

// The exchange is told of as HTTP has it, inside TLS.
func TestHTTPSRecordsPlainText(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(web))
	defer s.Close()
	to := at(s.Listener.Addr().String())
	var sent, received strings.Builder
	to.Record = func(out bool, data []byte) {
		if out {
			sent.Write(data)
		} else {
			received.Write(data)
		}
	}
	wants(t, &HTTPS{}, to, "200 OK")
	if !strings.HasPrefix(sent.String(), "GET / HTTP/1.1\r\nHost: 127.0.0.1") || !strings.HasSuffix(received.String(), page) {
		t.Errorf("sent %q, received %q", sent.String(), received.String())
	}
}
