package e2e

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"uvs/lab"
)

// checkedKind is a check of one of the real servers' programs.
type checkedKind struct {
	id, flag string
	port     uint16 // of the virtual service and of the real server
	six      bool
	words    []string // kind and options
	wrong    []string // further options, with which the same server gives the wrong answer, and why that is wrong
	why      string
	host     bool // it asks the host and not its programs
	accepts  bool // it asks no more than that connections are accepted, which a program that hangs still does
}

const checkedNginx = `
daemon off;
user root;
worker_processes 1;
pid {DIR}/nginx.pid;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path {DIR}/body;
	proxy_temp_path {DIR}/proxy;
	fastcgi_temp_path {DIR}/fastcgi;
	uwsgi_temp_path {DIR}/uwsgi;
	scgi_temp_path {DIR}/scgi;
	server {
		listen 80;
		listen [::]:80 ipv6only=on;
		listen 443 ssl http2;
		ssl_certificate {CERT};
		ssl_certificate_key {KEY};
		ssl_client_certificate {CERT};
		ssl_verify_client optional;
		location = /name { return 200 "{NAME} $host $http_x_check\n"; }
		location = /certificate { return 200 "$ssl_client_verify $server_protocol\n"; }
		location = /moved { return 302 /name; }
		location = /secret { auth_basic secret; auth_basic_user_file {DIR}/users; return 200 "in\n"; }
	}
	server { # an answer of gRPC's, from a file
		listen 8080 http2;
		root {DIR};
		error_page 405 =200 /serving;
		location = /grpc.health.v1.Health/Check { return 405; }
		location = /serving { default_type application/grpc; add_trailer grpc-status 0 always; }
	}
}
`

// checkedKinds are the checks, for programs on rs1 whose certificate is at a path.
func checkedKinds(c *cell) []checkedKind {
	pop3 := c.port(110)
	return []checkedKind{
		{id: "http", flag: "-t", port: 80, words: []string{"http", "path=/name", "host=www.example.com", "headers=X-Check: uvs", "contains=rs1 www.example.com uvs"},
			wrong: []string{"contains=rs2"}, why: `200 OK, but "rs2" isn't in the body`},
		{id: "digest", flag: "-t", port: 80, words: []string{"http", "path=/name", "host=a", "digest=" + md5Text("rs1 a \n")},
			wrong: []string{"host=b"}, why: "the body's digest is " + md5Text("rs1 b \n")},
		{id: "status", flag: "-t", port: 80, words: []string{"http", "path=/moved", "status=302"}, wrong: []string{"status=200-299"}, why: "status 302 Moved Temporarily, not 200-299"},
		{id: "http6", flag: "-t", port: 80, six: true, words: []string{"http", "path=/name", "match=^rs1 "}, wrong: []string{"path=/none"}, why: "status 404 Not Found"},
		{id: "https", flag: "-t", port: 443, words: []string{"https", "path=/certificate", "contains=NONE HTTP/1.1", "verify=yes", "sni=" + c.VIP().String(), "ca=" + c.cert.cert},
			wrong: []string{"sni=www.example.com"}, why: "TLS handshake: tls: failed to verify certificate"},
		{id: "h2", flag: "-t", port: 443, words: []string{"https", "version=2", "path=/certificate", "contains=SUCCESS HTTP/2.0", "cert=" + c.cert.cert, "key=" + c.cert.key},
			wrong: []string{"path=/none"}, why: "status 404"},
		{id: "grpc", flag: "-t", port: 8080, words: []string{"grpc"}, wrong: []string{"tls=yes"}, why: "TLS handshake"},
		{id: "expect", flag: "-t", port: 80, words: []string{"expect", `send=GET /name HTTP/1.0\r\n\r\n`, "expect=HTTP/1", `match=rs1 `}, wrong: []string{"expect=220"}, why: "the answer is"},
		{id: "exec", flag: "-t", port: 80, words: []string{"exec", `command=/usr/bin/curl -sSf --max-time 5 "http://%h:%p/name"`},
			wrong: []string{"command=/usr/bin/curl -sSf http://%h:%p/none"}, why: "status 22: curl: (22) The requested URL returned error: 404"},
		{id: "smtp", flag: "-t", port: c.port(25), words: []string{"smtp", "hello=lb.test"}, wrong: []string{"tls=starttls"}, why: "reply to STARTTLS: 503"},
		{id: "ftp", flag: "-t", port: 21, words: []string{"ftp"}, wrong: []string{"user=nobody-known"}, why: "reply to "},
		{id: "dns", flag: "-u", port: c.port(53), words: []string{"dns", "query=x.a.test", "answer=192.0.2.1"}, wrong: []string{"answer=192.0.2.2"}, why: `no record says "192.0.2.2"`},
		{id: "dns-tcp", flag: "-t", port: c.port(53), words: []string{"dns", "query=name.test", "type=TXT", "answer=rs1"}, wrong: []string{"query=none.test"}, why: "REFUSED, not NOERROR"},
		{id: "udp", flag: "-u", port: c.port(53), words: []string{"udp", `request=\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x01a\x04test\x00\x00\x01\x00\x01`, `expect=\x00\x07\x85`},
			wrong: []string{`expect=\x00\x08`}, why: "none of 1 answers is the expected one"},
		{id: "pop3", flag: "-t", port: pop3, words: []string{"pop3", "user=" + c.mailbox(), "password=secret"}, wrong: []string{"password=guess"}, why: "reply to PASS: \"-ERR"},
		{id: "postgres", flag: "-t", port: c.port(5432), words: []string{"postgres", "user=postgres"}, wrong: []string{"database=none"}, why: `database "none" does not exist (3D000)`},
		{id: "tcp", flag: "-t", port: 80, words: []string{"tcp"}, accepts: true},
		{id: "icmp", flag: "-t", port: 80, words: []string{"icmp"}, host: true},
		{id: "icmp6", flag: "-t", port: 80, six: true, words: []string{"icmp"}, host: true},
		{id: "arp", flag: "-t", port: 80, words: []string{"arp"}, host: true},
		{id: "ndp", flag: "-t", port: 80, six: true, words: []string{"arp"}, host: true},
	}
}

// TestCheckKinds has uvsd ask real programs, which answer, give a wrong answer, hang, are gone and come back, at last with their
// host.
func TestCheckKinds(t *testing.T) {
	c := &cell{rig: &rig{t: t}, matrix: &matrix{dir: sharedDir(t)}}
	c.matrix.sql = newSQLClusters(t)
	c.raise(lab.Config{RealServers: 1, IPv6: true})
	c.director = startDirector(t, c.Directors[0], program("uvsd"), c.attach()...)
	c.cert = newCertificate(t, c.VIPs[0])
	c.mailDir = filepath.Join(sharedDir(t), "mail")
	must(t, os.Mkdir(c.mailDir, 0o777))
	must(t, os.Chmod(c.mailDir, 0o777))
	s := &station{Host: c.RealServers[0], cell: c, name: "rs1", dir: sharedDir(t)}
	must(t, os.WriteFile(filepath.Join(s.dir, "serving"), []byte("\x00\x00\x00\x00\x02\x08\x01"), 0o644))
	s.serveChecked(t)
	kinds := checkedKinds(c)

	var rules []string
	done := map[string]bool{}
	for _, k := range kinds {
		if vs := k.flag + " " + c.seen(k).at(k.port); !done[vs] {
			done[vs] = true
			rules = append(rules, "-A "+vs+" -s rr", fmt.Sprintf("-a %s -r %v -m", vs, netip.AddrPortFrom(c.seen(k).addr(s.Host), k.port)))
		}
	}
	c.restore(rules...)
	for _, k := range kinds {
		c.adm(append([]string{"check", "add", k.flag, c.seen(k).at(k.port)}, append(k.words, "id="+k.id, "interval=500ms", "timeout=2s", "rise=1", "fall=1")...)...)
	}
	programs, host := func(k checkedKind) bool { return !k.host }, func(checkedKind) bool { return true }
	hanging := func(k checkedKind) bool { return !k.host && !k.accepts }
	c.awaitChecks(t, "all answer", kinds, nil)
	for _, k := range kinds {
		if k.why == "" {
			continue
		}
		eventually(t, k.id+" gets the wrong answer with "+strings.Join(k.wrong, " "), func() (bool, any) { // a datagram may be lost
			out, err := c.tryAdm("", append([]string{"check", "test", k.flag, c.seen(k).at(k.port)}, replaced(k.words, append(k.wrong, "timeout="+patienceFor(k)))...)...)
			return err != nil && strings.Contains(out, k.why), fmt.Sprintf("%v, want %q in\n%s", err, k.why, out)
		})
	}
	s.signal(t, syscall.SIGSTOP)
	c.awaitChecks(t, "all programs hang", kinds, hanging)
	s.signal(t, syscall.SIGCONT)
	c.awaitChecks(t, "all go on", kinds, nil)
	s.signal(t, syscall.SIGKILL)
	c.awaitChecks(t, "all programs are gone", kinds, programs)
	s.serveChecked(t)
	c.awaitChecks(t, "all are back", kinds, nil)
	must(t, s.SetUp("eth0", false))
	c.awaitChecks(t, "their host is gone", kinds, host)
}

// patienceFor is how long a wrong answer may take: UDP's is one that never comes, and Dovecot lets those wait who guess.
func patienceFor(k checkedKind) string {
	if k.id == "udp" {
		return "1s"
	}
	return "20s"
}

// seen is the cell in a check's family.
func (c *cell) seen(k checkedKind) *cell {
	if k.six {
		return c.over6()
	}
	return c
}

// replaced are words of which some options have other values.
func replaced(words, others []string) []string {
	out := append([]string(nil), words...)
	for _, other := range others {
		name, _, _ := strings.Cut(other, "=")
		found := false
		for i, w := range out {
			if strings.HasPrefix(w, name+"=") {
				out[i], found = other, true
			}
		}
		if !found {
			out = append(out, other)
		}
	}
	return out
}

// serveChecked starts all programs.
func (s *station) serveChecked(t *testing.T) {
	t.Helper()
	conf := s.file(t, "nginx.conf", checkedNginx, "{CERT}", s.cell.cert.cert, "{KEY}", s.cell.cert.key)
	s.start(t, nil, "nginx", "-e", "stderr", "-p", s.dir, "-c", conf)
	if _, err := os.Stat(filepath.Join(s.dir, "spool")); err == nil {
		must(t, os.RemoveAll(filepath.Join(s.dir, "spool")))
		must(t, os.RemoveAll(filepath.Join(s.dir, "dovecot")))
		for _, c := range []*cell{s.cell, s.cell.over6()} {
			must(t, os.RemoveAll(filepath.Join(s.dir, "control-"+c.mailbox())))
		}
	}
	serveExim(t, s)
	serveDovecot(t, s)
	dnsApp.serve(t, s)
	s.cell.matrix.sql.serve(t, s)
	ftpServer(t, s.Host, s.Addr(), s.name, 100)
	if t.Failed() {
		t.FailNow()
	}
}

// signal sends a signal to all processes of the station.
func (s *station) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	var own os.FileInfo
	must(t, s.Do(func() (err error) {
		own, err = os.Stat("/proc/thread-self/ns/net")
		return err
	}))
	for range 3 { // for those that were just being started
		found, err := filepath.Glob("/proc/[0-9]*/ns/net")
		must(t, err)
		for _, path := range found {
			info, err := os.Stat(path)
			if err != nil || !os.SameFile(own, info) {
				continue
			}
			pid, err := strconv.Atoi(strings.Split(path, "/")[2])
			if err != nil || pid == os.Getpid() {
				continue
			}
			with := sig
			if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); sig == syscall.SIGKILL && string(name) == "postgres\n" {
				with = syscall.SIGQUIT // at once as well, but its lock file and its shared memory go with it
			}
			_ = syscall.Kill(pid, with)
		}
	}
}

// awaitChecks waits until those checks are down that down says, and all others are up.
func (c *cell) awaitChecks(t *testing.T, what string, kinds []checkedKind, down func(checkedKind) bool) {
	t.Helper()
	want := map[string]string{}
	for _, k := range kinds {
		want[k.id] = "up"
		if down != nil && down(k) {
			want[k.id] = "down"
		}
	}
	eventually(t, what, func() (bool, any) {
		var reply struct {
			Servers []struct {
				Checks []struct {
					ID, State string
					Last      *struct{ Text string }
				}
			}
		}
		must(t, json.Unmarshal([]byte(c.adm("health", "--json")), &reply))
		var wrong []string
		n := 0
		for _, s := range reply.Servers {
			for _, k := range s.Checks {
				if n++; k.State != want[k.ID] && k.Last != nil {
					wrong = append(wrong, fmt.Sprintf("%s is %s: %s", k.ID, k.State, k.Last.Text))
				} else if k.State != want[k.ID] {
					wrong = append(wrong, fmt.Sprintf("%s is %s", k.ID, k.State))
				}
			}
		}
		return n == len(kinds) && len(wrong) == 0, fmt.Sprintf("%d checks; %s", n, strings.Join(wrong, "; "))
	})
}

// md5Text is a body's digest, as genhash prints it.
func md5Text(body string) string { return fmt.Sprintf("%x", md5.Sum([]byte(body))) }
