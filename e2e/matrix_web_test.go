package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/lab"
)

// bodyBytes is the size of the file "body" that the servers have, and checkedBytes how much of it clients get while a
// capture runs.
const (
	bodyBytes    = 48 << 20
	checkedBytes = 3 << 20
)

// webApp is nginx with curl and wrk.
var webApp = app{
	name:  "nginx",
	ports: []appPort{{number: 80}},
	serve: serveNginx,
	check: func(t *testing.T, c *cell) { c.checkWeb(t, c.url()) },
	measure: func(t *testing.T, c *cell) {
		url := c.url()
		c.curlRate(t, "nginx: curl download", url)
		c.wrkRate(t, "nginx: wrk, kept connections", url)
		c.wrkRate(t, "nginx: wrk, a connection each", url, "-H", "Connection: close")
	},
}

// tlsApp is the same nginx by HTTPS.
var tlsApp = app{
	name:  "nginx-tls",
	ports: []appPort{{number: 443}},
	serve: func(*testing.T, *station) {}, // serveNginx has
	check: func(t *testing.T, c *cell) { c.checkWeb(t, c.tlsURL()) },
	measure: func(t *testing.T, c *cell) {
		url := c.tlsURL()
		c.curlRate(t, "nginx, TLS: curl download", url)
		c.wrkRate(t, "nginx, TLS: wrk, a connection each", url, "-H", "Connection: close")
	},
}

// tlsURL is the web service's by HTTPS.
func (c *cell) tlsURL() string { return strings.Replace(c.url(), "http:", "https:", 1) }

const nginxConf = `
daemon off;
user root;
worker_processes 1;
pid {DIR}/nginx.pid;
events { worker_connections 512; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	client_max_body_size 0;
	client_body_temp_path {DIR}/body;
	proxy_temp_path {DIR}/proxy;
	fastcgi_temp_path {DIR}/fastcgi;
	uwsgi_temp_path {DIR}/uwsgi;
	scgi_temp_path {DIR}/scgi;
	default_type application/octet-stream;
	server {
		listen {HTTP} backlog=1024;
		listen [::]:{HTTP} backlog=1024 ipv6only=on;
		listen {HTTPS} ssl;
		listen [::]:{HTTPS} ssl ipv6only=on;
		ssl_certificate {CERT};
		ssl_certificate_key {KEY};
		location = /name { return 200 "{NAME}\n"; }
		location /put/ { root {DIR}; dav_methods PUT; create_full_put_path on; }
		location / { root {SHARED}; }
	}
}
`

func serveNginx(t *testing.T, s *station) {
	conf := s.file(t, "nginx.conf", nginxConf, "{HTTP}", s.port(80), "{HTTPS}", s.port(443), "{CERT}", s.cell.cert.cert, "{KEY}", s.cell.cert.key)
	s.start(t, nil, "nginx", "-e", "stderr", "-p", s.dir, "-c", conf)
}

// curlArgs are for curl with a new connection, to a server that it trusts.
func (c *cell) curlArgs(args ...string) []string {
	return append([]string{"-sS", "--fail", "--max-time", "12", "--cacert", c.cert.cert}, args...)
}

// checkWeb asks by name, downloads and uploads.
func (c *cell) checkWeb(t *testing.T, url string) {
	got := lab.Tally{}
	for range 2 * len(c.stations) {
		got[strings.TrimSpace(string(c.run(t, nil, "curl", c.curlArgs(url+"/name")...)))]++
	}
	for _, s := range c.stations {
		if got[s.name] != 2 {
			t.Errorf("%s answered %d requests, want 2: %v", s.name, got[s.name], got)
		}
	}
	var all sync.WaitGroup
	for i := range 8 { // at once, each of another length
		all.Go(func() {
			const size = checkedBytes / 8
			piece, err := c.try(t, nil, "curl", c.curlArgs("--range", fmt.Sprintf("0-%d", size+i), url+"/body")...)
			if sum := sha256.Sum256(piece); err != nil || sum != lab.ContentSHA256(0, size+int64(i)+1) {
				t.Errorf("one of several downloads has %d bytes with SHA-256 %x, %v", len(piece), sum, err)
			}
		})
	}
	all.Wait()
	want := lab.ContentSHA256(0, checkedBytes)
	body := c.run(t, nil, "curl", c.curlArgs("--range", fmt.Sprintf("0-%d", checkedBytes-1), url+"/body")...)
	if sum := sha256.Sum256(body); sum != want {
		t.Errorf("the download has %d bytes with SHA-256 %x, want %d with %x", len(body), sum, checkedBytes, want)
	}
	name := fmt.Sprintf("up-%s-%t", c.family(), strings.HasPrefix(url, "https"))
	c.run(t, body, "curl", c.curlArgs("--upload-file", "-", url+"/put/"+name)...)
	var found int
	for _, s := range c.stations {
		file, err := os.ReadFile(filepath.Join(s.dir, "put", name))
		if err != nil {
			continue
		}
		found++
		if sum := sha256.Sum256(file); sum != want {
			t.Errorf("%s has got %d bytes with SHA-256 %x, want %d with %x", s.name, len(file), sum, checkedBytes, want)
		}
	}
	if found != 1 {
		t.Errorf("%d real servers have the upload", found)
	}
}

// curlRate reports how fast curl downloads.
func (c *cell) curlRate(t *testing.T, row, url string) {
	out := strings.Fields(string(c.run(t, nil, "curl", c.curlArgs("-o", "/dev/null", "-w", "%{size_download} %{speed_download}", url+"/body")...)))
	speed, err := strconv.ParseFloat(out[1], 64)
	if out[0] != strconv.Itoa(bodyBytes) || err != nil {
		t.Errorf("curl says %v, want %d bytes", out, bodyBytes)
	}
	c.report(row, "%.0f MB/s", speed/1e6)
}

// wrkRate reports how many requests a second are answered.
func (c *cell) wrkRate(t *testing.T, row, url string, args ...string) {
	out := string(c.run(t, nil, "wrk", append(append([]string{"-t1", "-c8", "-d1s"}, args...), url+"/name")...))
	var rate float64
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "Requests/sec:"); ok {
			rate, _ = strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
		if strings.Contains(line, "Socket errors") || strings.Contains(line, "Non-2xx") {
			t.Error("wrk:", line)
		}
	}
	if rate < 20 {
		t.Errorf("wrk got %v answers a second:\n%s", rate, out)
	}
	c.report(row, "%.0f /s", rate)
}

// certificate is a key and a certificate that signs itself, as files.
type certificate struct{ cert, key string }

func newCertificate(t *testing.T, addrs ...netip.Addr) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	var ips []net.IP
	for _, a := range addrs {
		ips = append(ips, a.AsSlice())
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: addrs[0].String()}, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := sharedDir(t)
	c := &certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	must(t, os.WriteFile(c.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	must(t, os.WriteFile(c.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return c
}
