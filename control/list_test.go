package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

func TestConnections(t *testing.T) {
	f := newFixture(t)
	f.must("-A "+web+" -s rr", "-A "+mark+" -s rr -p 60")
	a := func(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }
	f.conns.list = []conntrack.Conn{
		{
			Client: a("192.0.2.1"), ClientPort: 1024, Virtual: a("10.9.0.100"), VirtualPort: 80, Server: a("10.1.0.11"), ServerPort: 80,
			Proto: service.TCP, State: conntrack.Established, Service: f.vs(web).Index, Expires: 1e9 + 899_900_000_000,
		},
		{
			Client: a("192.0.2.0"), Virtual: packet.AddrFrom4(1), Server: a("10.1.0.11"), State: conntrack.TemplateAssured,
			Flags: conntrack.Template, Service: f.vs(mark).Index, Expires: 5e8,
		},
		{
			Client: a("2001:db8::1"), ClientPort: 53, Virtual: a("2001:db8::100"), VirtualPort: 53, Server: a("2001:db8:1::11"), ServerPort: 53,
			Proto: service.UDP, State: conntrack.UDPNormal, Service: 77, Expires: 301e9,
		},
		{
			ID: 0xca11, Client: a("192.0.2.1"), Virtual: a("10.9.0.100"), VirtualPort: 5060, Server: a("10.1.0.11"), ServerPort: 5060,
			Proto: service.UDP, State: conntrack.TemplateNone, Flags: conntrack.Template, Service: 77, Expires: 61e9,
		},
	}
	want := []string{
		"tcp 192.0.2.1:1024 10.9.0.100:80 10.1.0.11:80 ESTABLISHED 899 false",
		"ip 192.0.2.0:0 0.0.0.1:0 10.1.0.11:0 ASSURED 0 true",
		"udp [2001:db8::1]:53 [2001:db8::100]:53 [2001:db8:1::11]:53 UDP 300 false",
		"udp 192.0.2.1:0 10.9.0.100:5060 10.1.0.11:5060 NONE 60 true sip a84b4c76e66710@pc33.example.com",
	}
	list := func(key *api.ServiceKey) (got []string, err error) {
		err = f.Connections(t.Context(), api.ConnectionFilter{Service: key}, func(c *api.Connection) error {
			row := fmt.Sprint(c.Protocol, " ", c.Client, " ", c.Virtual, " ", c.Server, " ", c.State, " ", c.ExpiresSeconds, " ", c.Template)
			if c.PersistenceEngine != "" {
				row += " " + c.PersistenceEngine + " " + c.PersistenceData
			}
			got = append(got, row)
			return nil
		})
		return got, err
	}
	if got, err := list(nil); err != nil || !slices.Equal(got, want) {
		t.Errorf("all: %q, %v, want %q", got, err, want)
	}
	if got, err := list(op("-D " + mark).Service); err != nil || !slices.Equal(got, want[1:2]) {
		t.Errorf("of the mark: %q, %v, want %q", got, err, want[1:2])
	}
	if _, err := list(op("-D " + dns).Service); !errors.Is(err, api.ServiceNotFound) {
		t.Errorf("of a service that isn't there: %v", err)
	}

	broken := errors.New("broken pipe")
	n := 0
	err := f.Connections(t.Context(), api.ConnectionFilter{}, func(*api.Connection) error { n++; return broken })
	if err != broken || n != 1 {
		t.Errorf("a reader that fails: %v after %d connections", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = f.Connections(ctx, api.ConnectionFilter{}, func(*api.Connection) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := f.Change(ctx, &api.ChangeRequest{Ops: ops("-C")}); !errors.Is(err, context.Canceled) || f.Table().Empty() {
		t.Errorf("a change after the end: %v", err)
	}
}

func TestTimeouts(t *testing.T) {
	f := newFixture(t)
	want := func(tcp, fin, udp uint32) {
		t.Helper()
		if got, err := f.Timeouts(t.Context()); err != nil || got != (api.Timeouts{TCP: tcp, TCPFin: fin, UDP: udp}) {
			t.Errorf("Timeouts() = %+v, %v, want %d %d %d", got, err, tcp, fin, udp)
		}
	}
	want(900, 120, 300)
	f.must("--set 60 0 10")
	want(60, 120, 10)
	if err := f.change("--set 1 1 1", "-D "+web); !errors.Is(err, api.ServiceNotFound) {
		t.Errorf("%v", err)
	}
	want(60, 120, 10)
	if n := len(f.published); n != 1 {
		t.Errorf("%d publications for timeouts alone", n-1)
	}
}

func TestStatusAndVersion(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Version.UVS = "0.1.0"
		c.FillStatus = func(s *api.Status) { s.PID = 42 }
	})
	f.must("-A "+web+" -s rr", "-a "+web+" -r 10.1.0.11", "-a "+web+" -r 10.1.0.12", "-A "+dns)
	f.conns.list = make([]conntrack.Conn, 5)
	s, err := f.Status(t.Context())
	if err != nil || s.PID != 42 || s.Services != 2 || s.Servers != 2 || s.Connections != 5 || s.Templates != 3 || s.Revision != 1 || s.Version != "0.1.0" {
		t.Errorf("Status() = %+v, %v", s, err)
	}
	if v, err := f.Version(t.Context()); err != nil || v != (api.Version{UVS: "0.1.0", IPVS: "1.2.1", ConnTableSize: 4096}) {
		t.Errorf("Version() = %+v, %v", v, err)
	}
}

// Both sides of the socket know the names of scheduler flags; they must know the same.
func TestFlagNamesAreTheAPIs(t *testing.T) {
	for _, scheduler := range append(sched.Names(), "none") {
		for flags := range api.SchedFlags(8) {
			names := flags.Names(scheduler)
			got, err := sched.ParseFlags(scheduler, names)
			if err != nil || got != service.SchedFlags(flags)<<3 || !slices.Equal(sched.FlagNames(scheduler, got), names) {
				t.Errorf("%s: %q is %#x, %v and %q", scheduler, names, got, err, sched.FlagNames(scheduler, got))
			}
		}
	}
}

// TestListsAreTheKernels replays the commands of the scheduler recordings and compares each list with the kernel's.
func TestListsAreTheKernels(t *testing.T) {
	files, _ := filepath.Glob("../testdata/golden/traces/sched-*.json")
	if len(files) < 50 {
		t.Fatalf("%d recordings", len(files))
	}
	compared := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var recording struct {
			Setup []string
			Steps []struct {
				IPVS   string
				Counts map[string][][5]any // server, method, weight, active, inactive
			}
		}
		if err := json.Unmarshal(data, &recording); err != nil {
			t.Fatal(err)
		}
		f := newFixture(t)
		f.must(recording.Setup...)
		for i, s := range recording.Steps {
			if s.IPVS != "" {
				f.must(s.IPVS)
			}
			for _, rows := range s.Counts { // there is one service
				var want, got []string
				for _, row := range rows {
					want = append(want, fmt.Sprint(row[0], " ", row[1], " ", row[2]))
				}
				for _, rs := range f.Table().Services[0].Servers {
					got = append(got, fmt.Sprint(rs, " ", rs.Method(), " ", rs.Weight()))
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s, step %d: %q, want %q", filepath.Base(file), i+1, got, want)
				}
				compared++
			}
		}
	}
	if compared < 500 {
		t.Errorf("only %d lists were compared", compared)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on")
	}
}
