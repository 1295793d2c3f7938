package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/lab"
)

// An app is a kind of service that clusters carry: a server from Debian's archive, and what its clients do.
type app struct {
	name string
	// ports are the virtual service's; the real servers' in NAT are others, see cell.port.
	ports []appPort
	// serve starts the servers on a real server. They listen, if only in a moment, when it returns.
	serve func(t *testing.T, s *station)
	// check lets the clients do all that they can, and compares the data.
	check func(t *testing.T, c *cell)
	// measure says how fast things are, in rows of the table.
	measure func(t *testing.T, c *cell)
}

// appPort is a virtual service of an app.
type appPort struct {
	number uint16
	udp    bool
	// persistent services are for clients whose connections belong together.
	persistent bool
}

// apps are the rows of the matrix.
var apps = []app{webApp, tlsApp, iperfApp, dnsApp, smtpApp, pop3App, lineApp, sqlApp, proxyApp}

// matrix is what the cells have in common.
type matrix struct {
	dir   string // of files that all cells read
	sql   *sqlClusters
	mu    sync.Mutex
	rows  []string                     // of the table, in order
	cells map[string]map[string]string // figures by row and column
}

// columns are the table's: method and offloads.
var columns = []string{"DR on", "DR off", "TUN on", "TUN off", "NAT on", "NAT off"}

// TestMatrix is every method, with and without offloads, over IPv4 and over IPv6, with the programs that clusters carry.
// With $UVS_MATRIX set, it writes the rates that it saw into that file.
func TestMatrix(t *testing.T) {
	m := &matrix{dir: sharedDir(t), cells: map[string]map[string]string{}}
	writeContent(t, filepath.Join(m.dir, "body"), bodyBytes)
	m.sql = newSQLClusters(t)
	for i, column := range columns {
		cfg := rigConfig{TUN: i/2 == 1, NAT: i/2 == 2, Config: lab.Config{OffloadsOff: i%2 == 1, Clients: 2, IPv6: true}}
		method, offloads, _ := strings.Cut(column, " ")
		t.Run(method+"/offloads="+offloads, func(t *testing.T) {
			m.column(t, column, cfg)
		})
	}
	table := m.table()
	t.Log("\n" + table)
	if file := os.Getenv("UVS_MATRIX"); file != "" {
		must(t, os.WriteFile(file, []byte(table), 0o644))
	}
}

// column runs all apps on one topology, in each family in turn.
func (m *matrix) column(t *testing.T, column string, cfg rigConfig) {
	c := newCell(t, m, column, cfg)
	families := []*cell{c, c.over6()}
	var captures []*lab.Capture
	if cfg.OffloadsOff {
		for _, leg := range c.Directors[0].Legs {
			capture, err := c.Directors[0].Capture(leg.Name)
			must(t, err)
			captures = append(captures, capture)
		}
	}
	for _, a := range apps {
		for _, c := range families {
			t.Run(a.name+"/"+c.family(), func(t *testing.T) {
				c.used = append(c.used, a)
				stop := c.captureEnds(!cfg.OffloadsOff)
				a.check(t, c)
				stop(t)
			})
		}
	}
	if cfg.OffloadsOff {
		c.awaitQuiet()
		t.Run("checksums", func(t *testing.T) { c.checkSums(t, captures) })
	}
	for _, a := range apps {
		for _, c := range families {
			t.Run(a.name+"/"+c.family()+"/rate", func(t *testing.T) { a.measure(t, c) })
		}
	}
	for _, c := range families {
		c.checkShared(t)
	}
}

// captureEnds records what client1 and the real servers receive while an app is checked with offloads on. The result
// verifies the checksums there, for nobody else does: a partial one, left to the device, is trusted on the way through veths,
// and would be completed to a wrong one on a wire.
func (c *cell) captureEnds(offloads bool) (stop func(*testing.T)) {
	if !offloads {
		return func(*testing.T) {} // the ends verify what they get, and tshark reads all of it
	}
	client := capture(c.t, c.Clients[0].Namespace, "eth0")
	var servers []func() []wire
	if !c.tunnel { // behind the tunnel all are complete, and the servers' kernels verify them
		for _, s := range c.stations {
			servers = append(servers, capture(c.t, s.Namespace, "eth0"))
		}
	}
	return func(t *testing.T) {
		t.Helper()
		checkChecksums(t, client())
		if c.tunnel {
			return
		}
		var received []wire
		for _, stop := range servers {
			received = append(received, stop()...)
		}
		checkChecksums(t, received)
	}
}

// A cell is a topology of both families with all apps on its real servers, seen in one of the families:
//
//	client1 --- director --- rs1, rs2: each with all servers
//	client2: has what squid fetches
//
// The director has one set of rules, in which each service stands in both families.
type cell struct {
	*rig
	matrix   *matrix
	column   string
	cert     *certificate
	mailDir  string // that the real servers share
	stations []*station
	used     []app // that clients have asked
}

// station is a real server with its servers.
type station struct {
	*lab.Host
	cell *cell
	name string
	dir  string // for its servers' files
}

func newCell(t *testing.T, m *matrix, column string, cfg rigConfig) *cell {
	t.Helper()
	c := &cell{rig: &rig{t: t, direct: !cfg.NAT, tunnel: cfg.TUN}, matrix: m, column: column}
	c.raise(cfg.Config)
	c.director = startDirector(t, c.Directors[0], program("uvsd"), c.matrixArgs()...)
	c.cert = newCertificate(t, c.VIPs[0], c.VIPs6[0])
	c.mailDir = filepath.Join(sharedDir(t), "mail")
	must(t, os.Mkdir(c.mailDir, 0o777))
	must(t, os.Chmod(c.mailDir, 0o777))
	c.serveOrigins()

	var all sync.WaitGroup
	for i, rs := range c.RealServers {
		s := &station{Host: rs, cell: c, name: fmt.Sprintf("rs%d", i+1), dir: sharedDir(t)}
		c.stations = append(c.stations, s)
		for _, a := range apps {
			all.Go(func() { a.serve(t, s) })
		}
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	c.restore(append(c.rules(), c.over6().rules()...)...)
	for _, s := range c.stations {
		s.awaitServers(t)
	}
	return c
}

// over6 is the same cell seen in IPv6.
func (c *cell) over6() *cell {
	six := *c
	six.rig = c.rig.over6()
	return &six
}

// family is the cell's, for names.
func (c *cell) family() string {
	if c.six {
		return "IPv6"
	}
	return "IPv4"
}

// rules configure all services, in the cell's family.
func (c *cell) rules() (rules []string) {
	for _, a := range apps {
		for _, p := range a.ports {
			vs := fmt.Sprintf("%s %s", p.flag(), c.at(p.number))
			rule := "-A " + vs + " -s rr"
			if p.persistent {
				rule += " -p 300"
			}
			rules = append(rules, rule)
			for _, s := range c.stations {
				rules = append(rules, fmt.Sprintf("-a %s -r %v %s -w 1", vs, netip.AddrPortFrom(c.addr(s.Host), c.port(p.number)), c.method()))
			}
		}
	}
	return rules
}

// matrixArgs are uvsd's arguments.
func (c *cell) matrixArgs() []string {
	if c.direct {
		return c.attach()
	}
	return append(c.attach(), "--inner-traffic", "masquerade") // squid fetches on its own behalf
}

// flag is the option of uvsadm -A.
func (p appPort) flag() string {
	if p.udp {
		return "-u"
	}
	return "-t"
}

// port is where a real server listens for a virtual service's port: NAT can translate it.
func (c *cell) port(service uint16) uint16 {
	if c.direct {
		return service
	}
	return service + 10000
}

// origin is what squid fetches from.
func (c *cell) origin() netip.AddrPort { return netip.AddrPortFrom(c.addr(c.Clients[1]), 8000) }

// serveOrigins starts what squid fetches.
func (c *cell) serveOrigins() {
	c.t.Helper()
	host := c.Clients[1]
	_, err := lab.ServeHTTP(host.Namespace, "origin", c.origin(), c.over6().origin())
	must(c.t, err)
	if c.tunnel {
		must(c.t, host.AddRoute(netip.MustParsePrefix("10.2.0.0/24"), c.Router.Addr(), ""))
		must(c.t, host.AddRoute(netip.MustParsePrefix("2001:db8:2::/64"), c.Router.Addr6(), ""))
	}
}

// start runs a server on the station until the lab is closed.
func (s *station) start(t *testing.T, prepare func(*lab.Cmd), name string, args ...string) *lab.Cmd {
	t.Helper()
	cmd := s.Command(t.Context(), name, args...)
	log := new(logBuffer)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.dir
	cmd.Cancel = func() error { return os.ErrProcessDone } // the lab's end or a cleanup is
	cmd.WaitDelay = 0
	if prepare != nil {
		prepare(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Errorf("%s on %s: %v", name, s.name, err)
		return nil
	}
	t.Cleanup(func() {
		if t.Failed() && log.String() != "" {
			t.Logf("%s on %s says:\n%s", name, s.name, log)
		}
	})
	return cmd
}

// logsOf shows a server's own log files when the test has failed.
func (s *station) logsOf(t *testing.T, pattern string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		files, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		for _, f := range files {
			text, err := os.ReadFile(f)
			t.Logf("%s on %s: %s %v", filepath.Base(f), s.name, text, err)
		}
	})
}

// file writes a configuration file, with {NAME} and so on replaced, and returns its path.
func (s *station) file(t *testing.T, name, text string, replace ...string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	replace = append(replace, "{DIR}", s.dir, "{NAME}", s.name, "{SHARED}", s.cell.matrix.dir)
	if err := os.WriteFile(path, []byte(strings.NewReplacer(replace...).Replace(text)), 0o644); err != nil {
		t.Error(err)
	}
	return path
}

// port is where a virtual service's server listens here, as text.
func (s *station) port(service uint16) string { return fmt.Sprint(s.cell.port(service)) }

// awaitServers waits until every server takes connections.
func (s *station) awaitServers(t *testing.T) {
	t.Helper()
	for _, a := range apps {
		for _, p := range a.ports {
			if p.udp {
				continue // beside one by TCP
			}
			eventually(t, fmt.Sprintf("%s listens on %s, port %d", a.name, s.name, s.cell.port(p.number)), func() (bool, any) {
				ports, err := listening(s.Host)
				must(t, err)
				return ports[s.cell.port(p.number)], ports
			})
		}
	}
}

// listening are the ports where somebody takes connections. To try one would be a failed test for iperf3.
func listening(h *lab.Host) (ports map[uint16]bool, err error) { return portsOf(h, "0A") }

// portsOf are the ports of a host's TCP sockets in certain states, as /proc/net/tcp has them.
func portsOf(h *lab.Host, states ...string) (ports map[uint16]bool, err error) {
	ports = map[uint16]bool{}
	err = h.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/tcp")
		if err != nil {
			return err
		}
		text6, err := os.ReadFile("/proc/thread-self/net/tcp6") // sockets for both
		for line := range strings.Lines(string(text) + string(text6)) {
			f := strings.Fields(line)
			if len(f) < 4 || !slices.Contains(states, f[3]) {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				return fmt.Errorf("a socket's address %q: %w", f[1], err)
			}
			ports[uint16(port)] = true
		}
		return err
	})
	return ports, err
}

// run runs a program on client1 and returns what it prints. It must succeed, soon.
func (c *cell) run(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	out, err := c.try(t, stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is run for several goroutines at once.
func (c *cell) try(t *testing.T, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := c.Clients[0].Command(within(t, 15*time.Second), name, args...)
	var stdout, stderr logBuffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(stdin)), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, tail(stdout.String()), tail(stderr.String()))
	}
	return stdout.text, nil
}

// tail is the end of a text, if it's long.
func tail(s string) string {
	if len(s) > 600 {
		return "..." + s[len(s)-600:]
	}
	return s
}

// checkShared fails the test if a virtual service didn't use both real servers: every app has had several connections.
func (c *cell) checkShared(t *testing.T) {
	t.Helper()
	for _, a := range c.used {
		for _, p := range a.ports {
			vs := c.at(p.number)
			eventually(t, a.name+" used all real servers over "+c.family(), func() (bool, any) {
				stats := c.stats(p.flag(), vs)
				used := 0
				for addr, n := range stats {
					if addr != vs && n.Conns > 0 && n.InPkts > 0 {
						used++
					}
				}
				return used == len(c.stations) || p.persistent && used > 0, stats
			})
		}
	}
}

// checkSums lets tshark judge all that went in and out of the director: with offloads off there is no wrong checksum.
func (c *cell) checkSums(t *testing.T, captures []*lab.Capture) {
	for i, capture := range captures {
		frames := capture.Stop()
		if capture.Dropped() > 0 || capture.Err() != nil {
			t.Errorf("the capture missed %d frames: %v", capture.Dropped(), capture.Err())
		}
		for _, f := range frames {
			if f.PartialChecksum || f.SegmentSize > 0 {
				t.Fatal("there are super-frames or partial checksums: offloads are on")
			}
		}
		sums := readSums(t, frames)
		t.Logf("leg %d: %d frames, right checksums: %v", i, len(frames), sums.good)
		if len(sums.bad) > 0 {
			t.Errorf("leg %d: wrong checksums: %v:\n%s", i, sums.bad, strings.Join(sums.examples[:min(5, len(sums.examples))], "\n"))
		}
		kinds := []string{"ip", "tcp", "udp", "tcp6", "udp6"}
		told := []string{"icmp", "too big"} // how the client learns of the tunnel's MTU
		if c.tunnel {
			kinds = append(append(kinds, "inner ip"), told...)
		}
		for _, kind := range kinds {
			if sums.good[kind] < 10 && !slices.Contains(told, kind) || sums.good[kind] == 0 {
				t.Errorf("leg %d: tshark saw only %d right checksums of %s", i, sums.good[kind], kind)
			}
		}
	}
}

// sharedDir is a directory that servers enter as users of their own.
func sharedDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "uvs-m-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// report puts a figure into the table: the families are rows of their own.
func (c *cell) report(row, format string, args ...any) {
	m := c.matrix
	if c.six {
		row += ", IPv6"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cells[row] == nil {
		m.cells[row] = map[string]string{}
		m.rows = append(m.rows, row)
	}
	m.cells[row][c.column] = fmt.Sprintf(format, args...)
}

// table is the result: a row per program and figure, a column per method and offloads.
func (m *matrix) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-48s", "offloads")
	for _, c := range columns {
		fmt.Fprintf(&b, " %12s", c)
	}
	b.WriteByte('\n')
	for _, row := range m.rows {
		fmt.Fprintf(&b, "%-48s", row)
		for _, c := range columns {
			fmt.Fprintf(&b, " %12s", m.cells[row][c])
		}
		b.WriteByte('\n')
	}
	return b.String()
}
