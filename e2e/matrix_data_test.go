package e2e

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"uvs/lab"
)

// sqlApp is PostgreSQL with psql and pgbench.
var sqlApp = app{
	name:    "postgresql",
	ports:   []appPort{{number: 5432}},
	serve:   func(t *testing.T, s *station) { s.cell.matrix.sql.serve(t, s) },
	check:   checkSQL,
	measure: measureSQL,
}

// sqlClusters are the databases of rs1 and rs2, which outlive a cell because they take long to make.
type sqlClusters struct {
	bin   string // where PostgreSQL's programs are
	owner *syscall.Credential
	dirs  map[string]string // by real server
}

func newSQLClusters(t *testing.T) *sqlClusters {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	must(t, err)
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed")
	}
	owner, err := user.Lookup("postgres")
	must(t, err)
	cred, err := credential(owner)
	must(t, err)
	q := &sqlClusters{bin: filepath.Dir(found[len(found)-1]), owner: cred, dirs: map[string]string{}}
	dir := sharedDir(t)
	first := filepath.Join(dir, "rs1")
	must(t, makeOwned(first, owner))
	initdb := exec.Command(filepath.Join(q.bin, "initdb"), "-D", first, "-A", "trust", "-N", "--no-instructions", "--locale=C", "-E", "UTF8")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	initdb.Dir = first
	out, err := initdb.CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	hba := filepath.Join(first, "pg_hba.conf")
	must(t, os.WriteFile(hba, []byte("host all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n"), 0o644))
	second := filepath.Join(dir, "rs2")
	out, err = exec.Command("cp", "-a", first, second).CombinedOutput()
	if err != nil {
		t.Fatalf("copy a database: %v\n%s", err, out)
	}
	q.dirs["rs1"], q.dirs["rs2"] = first, second
	return q
}

// serve starts PostgreSQL on a real server.
func (q *sqlClusters) serve(t *testing.T, s *station) {
	var args []string
	for _, setting := range []string{
		"listen_addresses=0.0.0.0,::", "port=" + s.port(5432), "unix_socket_directories=", "fsync=off", "full_page_writes=off", "synchronous_commit=off",
		"shared_buffers=16MB", "max_connections=20", "autovacuum=off", "logging_collector=off", "max_wal_senders=0", "wal_level=minimal",
		"cluster_name=" + s.name,
	} {
		args = append(args, "-c", setting)
	}
	cmd := s.start(t, func(cmd *lab.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: q.owner}
		cmd.Dir = q.dirs[s.name]
	}, filepath.Join(q.bin, "postgres"), append([]string{"-D", q.dirs[s.name]}, args...)...)
	if cmd == nil {
		return
	}
	t.Cleanup(func() { // in order, or shared memory of System V's kind stays
		stuck := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		defer stuck.Stop()
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
}

// psql runs commands and returns what they print.
func (c *cell) psql(t *testing.T, stdin string, commands ...string) string {
	t.Helper()
	args := []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", c.VIP().String(), "-U", "postgres"}
	for _, command := range commands {
		args = append(args, "-c", command)
	}
	return string(c.run(t, []byte(stdin), "psql", args...))
}

func checkSQL(t *testing.T, c *cell) {
	eventually(t, "the databases are up", func() (bool, any) { // they listen before
		for _, s := range c.stations {
			out, err := s.Command(t.Context(), "psql", "-X", "-h", c.addr(s.Host).String(), "-p", s.port(5432), "-U", "postgres", "-c", "select 1").CombinedOutput()
			if err != nil {
				return false, string(out)
			}
		}
		return true, nil
	})
	got := lab.Tally{}
	for range 2 * len(c.stations) {
		got[strings.TrimSpace(c.psql(t, "", "show cluster_name"))]++
	}
	for _, s := range c.stations {
		if got[s.name] != 2 {
			t.Errorf("%s answered %d times, want 2: %v", s.name, got[s.name], got)
		}
	}
	const rows = 40_000
	var lines strings.Builder
	for i := 1; i <= rows; i++ {
		fmt.Fprintf(&lines, "%x\n", md5.Sum([]byte(strconv.Itoa(i))))
	}
	want := lines.String()
	if got := c.psql(t, "", fmt.Sprintf("copy (select md5(i::text) from generate_series(1,%d) i) to stdout", rows)); got != want {
		t.Errorf("%d bytes came out, not the %d of the table", len(got), len(want))
	}
	out := c.psql(t, want, "create temp table up(n serial, v text)", "copy up(v) from stdin",
		`select encode(sha256(string_agg(v, E'\n' order by n)::bytea), 'hex') from up`)
	if sum := fmt.Sprintf("%x\n", sha256.Sum256([]byte(strings.TrimSuffix(want, "\n")))); out != sum {
		t.Errorf("what went in has SHA-256 %s, want %s", out, sum)
	}
}

func measureSQL(t *testing.T, c *cell) {
	script := filepath.Join(sharedDir(t), "script")
	must(t, os.WriteFile(script, []byte("select :client_id;\n"), 0o644))
	out := string(c.run(t, nil, filepath.Join(c.matrix.sql.bin, "pgbench"), "-n", "-f", script, "-T", "1", "-c", "4", "-h", c.VIP().String(), "-U", "postgres", "postgres"))
	var rate float64
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "tps = "); ok {
			rate, _ = strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	if rate < 20 || !strings.Contains(out, "failed transactions: 0 ") {
		t.Errorf("pgbench:\n%s", out)
	}
	c.report("postgresql: pgbench, 4 clients", "%.0f /s", rate)
}

// proxyApp is squid with curl, which fetches from client2.
var proxyApp = app{
	name:  "squid",
	ports: []appPort{{number: 3128}},
	serve: serveSquid,
	check: func(t *testing.T, c *cell) {
		for range len(c.stations) {
			body := c.run(t, nil, "curl", c.proxied(fmt.Sprintf("http://%v/bytes?n=%d", c.origin(), checkedBytes))...)
			if sum := sha256.Sum256(body); sum != lab.ContentSHA256(0, checkedBytes) {
				t.Errorf("%d bytes came with SHA-256 %x, want %d", len(body), sum, checkedBytes)
			}
			got := string(c.run(t, body, "curl", c.proxied("--proxytunnel", "--data-binary", "@-", fmt.Sprintf("http://%v/upload", c.origin()))...))
			if want := fmt.Sprintf("%x %d\n", lab.ContentSHA256(0, checkedBytes), checkedBytes); got != want {
				t.Errorf("the origin has got %q, want %q", got, want)
			}
		}
	},
	measure: func(t *testing.T, c *cell) {
		out := strings.Fields(string(c.run(t, nil, "curl", c.proxied("-o", "/dev/null", "-w", "%{size_download} %{speed_download}",
			fmt.Sprintf("http://%v/bytes?n=%d", c.origin(), bodyBytes))...)))
		speed, err := strconv.ParseFloat(out[1], 64)
		if out[0] != strconv.Itoa(bodyBytes) || err != nil {
			t.Errorf("curl says %v, want %d bytes", out, bodyBytes)
		}
		c.report("squid: curl download", "%.0f MB/s", speed/1e6)
	},
}

const squidConf = `
http_port {PORT}
visible_hostname {NAME}.test
pid_filename none
access_log none
cache_log /dev/stderr
cache_store_log none
coredump_dir {DIR}
cache deny all
cache_mem 1 MB
memory_pools off
pinger_enable off
max_filedescriptors 1024
dns_nameservers 192.0.2.53
shutdown_lifetime 0 seconds
cache_effective_user proxy
http_access allow all
mime_table /usr/share/squid/mime.conf
netdb_filename none
`

func serveSquid(t *testing.T, s *station) {
	proxy, err := user.Lookup("proxy")
	if err != nil {
		t.Error(err)
		return
	}
	s.directory(t, "squid", proxy)
	conf := s.file(t, "squid.conf", squidConf, "{PORT}", s.port(3128))
	s.start(t, nil, "squid", "-N", "-n", "uvs"+s.name+strconv.Itoa(os.Getpid()), "-f", conf)
}

// proxied are curl's arguments for a request by the cluster.
func (c *cell) proxied(args ...string) []string {
	return append([]string{"-sS", "--fail", "--max-time", "12", "--proxy", "http://" + c.at(3128)}, args...)
}

// makeOwned makes a directory for a user.
func makeOwned(dir string, owner *user.User) error {
	cred, err := credential(owner)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Chown(dir, int(cred.Uid), int(cred.Gid))
}

// credential is what a process of a user has.
func credential(u *user.User) (*syscall.Credential, error) {
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}
