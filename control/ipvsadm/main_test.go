package ipvsadm

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/control/api"
)

// serveKernel serves a kernel on a socket and returns the socket's name.
func serveKernel(t testing.TB, b api.Backend) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "uvsd.sock")
	l, err := api.Listen(socket, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, b) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return socket
}

// call runs Main and returns what it printed.
func call(env map[string]string, stdin string, argv ...string) (out, errs string, exit int) {
	var stdout, stderr strings.Builder
	exit = Main(context.Background(), argv, System{Getenv: func(k string) string { return env[k] },
		Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
	return stdout.String(), stderr.String(), exit
}

func TestTheSocketIsNamedByOptionOrEnvironment(t *testing.T) {
	k := newKernel()
	socket := serveKernel(t, k)
	env := map[string]string{"UVS_SOCKET": socket}
	nowhere := map[string]string{"UVS_SOCKET": filepath.Join(t.TempDir(), "none.sock")}
	for _, row := range []struct {
		name string
		env  map[string]string
		argv []string
		errs string
		exit int
	}{
		{"environment", env, []string{"uvsadm", "-L", "-n"}, "", 0},
		{"option wins", nowhere, []string{"uvsadm", "--socket", socket, "-L", "-n"}, "", 0},
		{"option with =", nowhere, []string{"/usr/bin/uvsadm", "--socket=" + socket, "-Ln"}, "", 0},
		{"no command", env, []string{"uvsadm"}, "", 0},
		{"option alone", nowhere, []string{"uvsadm", "--socket", socket}, "", 0},
		{"option without value", env, []string{"uvsadm", "--socket"}, "uvsadm: --socket: missing argument\n", 2},
		{"option too late", env, []string{"uvsadm", "-L", "--socket", socket}, "--socket: unknown option\n", 255},
		{"ipvsadm by environment", env, []string{"/sbin/ipvsadm", "-L", "-n"}, "", 0},
		{"ipvsadm has no such option", env, []string{"ipvsadm", "--socket", socket, "-L"},
			"Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n", 255},
		{"ipvsadm has no words", env, []string{"ipvsadm", "status"}, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n", 255},
		{"nobody there", nowhere, []string{"/usr/sbin/uvsadm", "-L"}, "uvsadm: cannot reach uvsd at " + nowhere["UVS_SOCKET"] +
			": no such file or directory (is uvsd running? --socket names another)\n", 255},
		{"nobody there to change", nowhere, []string{"ipvsadm", "-C"}, "ipvsadm: cannot reach uvsd at " + nowhere["UVS_SOCKET"] +
			": no such file or directory (is uvsd running? --socket names another)\n", 255},
		{"no daemon needed", nowhere, []string{"uvsadm", "-v"}, "", 0},
	} {
		if _, errs, exit := call(row.env, "", row.argv...); errs != row.errs || exit != row.exit {
			t.Errorf("%s: %q: exit %d, %q; want %d, %q", row.name, row.argv, exit, errs, row.exit, row.errs)
		}
	}
	if _, errs, _ := call(nil, "", "uvsadm", "-L"); !strings.Contains(errs, api.DefaultSocket) {
		t.Errorf("without any name: %q, want %s", errs, api.DefaultSocket)
	}
}

func TestWordsBelongToUvsadm(t *testing.T) {
	k := newKernel()
	env := map[string]string{"UVS_SOCKET": serveKernel(t, k)}
	call(env, "", "uvsadm", "-A", "-t", "10.9.0.100:80")
	for _, row := range []struct {
		args string
		want string // of it
		errs string
		exit int
	}{
		{"list", "TCP  10.9.0.100:80 wlc\n", "", 0},
		{"list --json", `"address": "10.9.0.100"`, "", 0},
		{"connections", "pe name          pe_data\n", "", 0},
		{"connections --json", "", "", 0},
		{"version", "uvsd 0.1.0, in the manner of IPVS 1.2.1\n", "", 0},
		{"version --json", `"uvs": "0.1.0"`, "", 0},
		{"status --json", `"pid": 0`, "", 0},
		{"help", "uvsadm status [--json]", "", 0},
		{"-h", "uvsadm status [--json]", "", 0},
		{"-h", "  uvsadm -A|E virtual-service", "", 0},
		{"list --json --json", "", "uvsadm list: unexpected argument --json\n", 2},
		{"status now", "", "uvsadm status: unexpected argument now\n", 2},
		{"extra", "", "uvsadm: no such word: extra (try: uvsadm help)\n", 2},
	} {
		out, errs, exit := call(env, "", append([]string{"uvsadm"}, strings.Fields(row.args)...)...)
		if !strings.Contains(out, row.want) || errs != row.errs || exit != row.exit {
			t.Errorf("uvsadm %s: exit %d, %q, %q; want %d, %q, %q", row.args, exit, errs, out, row.exit, row.errs, row.want)
		}
	}
	if out, _, _ := call(env, "", "ipvsadm", "-h"); strings.Contains(out, "status") {
		t.Errorf("ipvsadm -h speaks of words:\n%s", out)
	}
}

// busy is a kernel with something to report.
type busy struct{ *kernel }

func (busy) Status(context.Context) (*api.Status, error) {
	return &api.Status{
		Version: "0.1.0", PID: 77, Started: time.Now().Add(-90 * time.Second), Revision: 1,
		Interfaces: []api.Interface{{Name: "eth0", MAC: "02:00:00:00:00:01", Mode: "virtual", Link: "ring", MTU: 1500, Up: true, Offloads: true,
			Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.100"), netip.MustParseAddr("2001:db8::100")}}},
		Workers:  []api.Worker{{ID: 0, CPU: -1, Packets: api.Packets{Received: 10, Forwarded: 4, Answered: 3, Passed: 1, Dropped: 2}}},
		Packets:  api.Packets{Received: 10, Forwarded: 4, Answered: 3, Passed: 1, Dropped: 2},
		Drops:    []api.Drop{{Reason: "no-route", Count: 2}},
		Services: 1, Servers: 2, Connections: 3,
		Warnings: []api.Warning{{Text: "10.9.0.100 is an address of this host", Remedy: "ip address del 10.9.0.100/32 dev lo"}},
	}, nil
}

func TestStatusIsForReading(t *testing.T) {
	out, errs, exit := call(map[string]string{"UVS_SOCKET": serveKernel(t, busy{newKernel()})}, "", "uvsadm", "status")
	want := `uvsd 0.1.0, process 77, up 1m30s, 1 change
1 service with 2 servers, 3 connections, 0 templates

Interface  State  MAC                Mode     Link  MTU   Offloads  Owns
eth0       up     02:00:00:00:00:01  virtual  ring  1500  yes       10.9.0.100 2001:db8::100

Worker  CPU  Received  Forwarded  Answered  Passed  Dropped  Held
0       -    10        4          3         1       2        0
all          10        4          3         1       2        0

Dropped for  Frames
no-route     2

Warning: 10.9.0.100 is an address of this host
  ip address del 10.9.0.100/32 dev lo
`
	if out != want || errs != "" || exit != 0 {
		t.Errorf("exit %d, %q\n%swant\n%s", exit, errs, out, want)
	}
}

func TestSaveAndRestoreScripts(t *testing.T) {
	k := newKernel()
	env := map[string]string{"UVS_SOCKET": serveKernel(t, k)}
	rules := "# rules of the day\n-A -t 127.0.0.1:80 -s rr\n\n#-A -t 10.0.0.2:80\n-a -t 127.0.0.1:80 -r 127.0.0.1:80 -m -w 3\n"
	call(env, "", "ipvsadm", "-A", "-t", "10.9.0.100:99")
	before := k.changes
	if out, errs, exit := call(env, rules, "/sbin/ipvsadm-restore", "-n"); exit != 0 || out+errs != "" {
		t.Fatalf("ipvsadm-restore: exit %d, %q %q", exit, out, errs)
	}
	if k.changes != before+1 {
		t.Errorf("%d changes for one restore, want 1", k.changes-before)
	}
	want := "-A -t 127.0.0.1:80 -s rr\n-a -t 127.0.0.1:80 -r 127.0.0.1:80 -m -w 3\n"
	if out, errs, exit := call(env, "", "ipvsadm-save", "-n", "rest"); out != want || errs != "" || exit != 0 {
		t.Errorf("ipvsadm-save -n: exit %d, %q, %q; want %q", exit, errs, out, want)
	}
	if out, errs, exit := call(env, "", "ipvsadm-save", "-x"); exit != 1 || out != "" || !strings.HasPrefix(errs, "ipvsadm-save: ") {
		t.Errorf("ipvsadm-save -x: exit %d, %q, %q; want 1 and how to use it", exit, errs, out)
	}
	if _, _, exit := call(env, "", "ipvsadm-restore"); exit != 0 || len(k.services) != 0 {
		t.Errorf("restoring nothing: exit %d and %d services, want an empty table", exit, len(k.services))
	}
}

// many returns rules for so many services of nine servers.
func many(services int) string {
	var b strings.Builder
	for i := range services {
		fmt.Fprintf(&b, "-A -t 10.%d.%d.1:80 -s wrr -p 300 -M 255.255.255.0\n", i>>8, i&255)
		for j := range 9 {
			fmt.Fprintf(&b, "-a -t 10.%d.%d.1:80 -r 10.200.%d.%d:80 -m -w %d\n", i>>8, i&255, i&255, j, j)
		}
	}
	return b.String()
}

func TestTenThousandRulesAreOneChange(t *testing.T) {
	k := newKernel()
	env := map[string]string{"UVS_SOCKET": serveKernel(t, k)}
	if _, errs, exit := call(env, many(1000), "uvsadm", "-R"); exit != 0 || errs != "" {
		t.Fatalf("exit %d, %q", exit, errs)
	}
	if k.changes != 1 || len(k.services) != 1000 || len(k.services[0].Servers) != 9 {
		t.Errorf("%d changes and %d services, want 1 and 1000", k.changes, len(k.services))
	}
	saved, _, _ := call(env, "", "uvsadm", "-S", "-n")
	if strings.Count(saved, "\n") != 10000 {
		t.Errorf("-S prints %d lines, want 10000", strings.Count(saved, "\n"))
	}
}

func TestTwoRestoresAtOnceNeverMix(t *testing.T) {
	k := newKernel()
	env := map[string]string{"UVS_SOCKET": serveKernel(t, k)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			call(env, fmt.Sprintf("-C\n-A -t 10.0.0.%d:80\n-A -t 10.0.0.%d:81\n", i, i), "uvsadm", "-R")
		})
	}
	wg.Wait()
	if len(k.services) != 2 || k.services[0].Address != k.services[1].Address {
		t.Errorf("%d services, %v: of more than one -R", len(k.services), k.services)
	}
}

func TestOddLinesOfRestore(t *testing.T) {
	for _, row := range []struct {
		name, in, errs string
		exit           int
		services       int
	}{
		{"all lines before a bad one count, none after", "-A -t 10.0.0.1:80\n-A -t 10.0.0.2\n-A -t 10.0.0.3:80\n",
			"Zero port specified for non-persistent service\n", 2, 1},
		{"popt's complaints do not stop it, and keep their place", "-D -t 10.0.0.1:80\n-A --bogus\n-D -t 10.0.0.2:80\n-A -t 10.0.0.3:80\n",
			"No such service\n--bogus: unknown option\nNo such service\n", 0, 1},
		{"an IPv4 address dressed as IPv6 is refused by itself", "-A -t [::ffff:10.0.0.1]:80\n-A -t 10.0.0.3:80\n",
			"Invalid operation.  Possibly wrong module version, address not unicast, ...\n", 0, 1},
		{"a last line without newline counts", "-A -t 10.0.0.1:80", "", 0, 1},
	} {
		m := newMachine()
		_, errs, exit := m.run([]string{"-R"}, row.in)
		if errs != row.errs || exit != row.exit || len(m.services) != row.services {
			t.Errorf("%s: exit %d, %q, %d services; want %d, %q, %d", row.name, exit, errs, len(m.services), row.exit, row.errs, row.services)
		}
	}
}

func TestARuleTooLongIsAnError(t *testing.T) {
	m := newMachine()
	_, errs, exit := m.run([]string{"-R"}, "-A -t 10.0.0.1:80\n"+strings.Repeat("x", 2<<20))
	if exit != 255 || !strings.HasPrefix(errs, "ipvsadm: read the rules: ") || len(m.services) != 1 {
		t.Errorf("exit %d, %q, %d services", exit, errs, len(m.services))
	}
}

func TestNamesOfIPv6AddressesAreReadBack(t *testing.T) {
	m := newMachine()
	m.must(t, "-A -t [2001:db8::100]:80 -s rr", "-a -t [2001:db8::100]:80 -r [2001:db8::102]:80 -m")
	saved, _, _ := m.run([]string{"-S"}, "")
	if !strings.Contains(saved, "[vip6.example.test]:http -r [short6.example.test]:http") {
		t.Fatalf("-S prints\n%s", saved)
	}
	before := m.table()
	m.must(t, "-C")
	if _, errs, exit := m.run([]string{"-R"}, saved); exit != 0 || errs != "" {
		t.Errorf("-R of it: exit %d, %q", exit, errs)
	}
	if got := strings.Join(m.table(), "\n"); got != strings.Join(before, "\n") {
		t.Errorf("restored\n%s\nwant\n%s", got, strings.Join(before, "\n"))
	}
}

func TestRefusalsWithoutWordsOfIpvsadmAreUvsds(t *testing.T) {
	m := newMachine()
	b := refusing{m.kernel, fmt.Errorf("add tcp 10.0.0.1:80: tunnels are not in this version: %w", api.Unsupported)}
	var stderr strings.Builder
	p := &Program{Name: "uvsadm", Backend: b, Names: hosts{}, Stderr: &stderr, Stdout: &stderr}
	exit := p.Run(t.Context(), strings.Fields("-A -t 10.0.0.1:80"))
	if want := "uvsadm: add tcp 10.0.0.1:80: tunnels are not in this version: unsupported\n"; stderr.String() != want || exit != 255 {
		t.Errorf("exit %d, %q; want %q", exit, stderr.String(), want)
	}
}

type refusing struct {
	*kernel
	err error
}

func (r refusing) Change(_ context.Context, req *api.ChangeRequest) (*api.ChangeReply, error) {
	reply := &api.ChangeReply{}
	for range req.Ops {
		reply.Results = append(reply.Results, api.OpResult{Error: api.AsError(r.err)})
	}
	return reply, nil
}

func TestListingsAreSortedAsTheManualSays(t *testing.T) {
	m := newMachine()
	m.must(t, "-A -f 4294967295", "-A -f 7 -6", "-A -f 7", "-A -t [ff01::1]:80", "-A -t [1::1]:80", "-A -u 1.0.0.1:80",
		"-A -t 200.0.0.1:80", "-A -t 9.0.0.1:80", "-A -t 100.0.0.1:40000", "-A -t 100.0.0.1:80")
	want := []string{"-A -t 9.0.0.1:80", "-A -t 100.0.0.1:80", "-A -t 100.0.0.1:40000", "-A -t 200.0.0.1:80", "-A -u 1.0.0.1:80",
		"-A -t [1::1]:80", "-A -t [ff01::1]:80", "-A -f 7", "-A -f 7 -6", "-A -f 4294967295"}
	for i, line := range m.table() {
		if line != want[i]+" -s wlc" {
			t.Errorf("line %d is %q, want %q", i, line, want[i])
		}
	}
}
