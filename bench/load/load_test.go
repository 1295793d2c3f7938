package load

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// run makes load for as long as a test can bear.
func run(t *testing.T, c Config) *Report {
	t.Helper()
	if c.Time == 0 {
		c.Time = 500 * time.Millisecond
	}
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// loopback sources: every address of 127/8 is the host's own.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.1.0.0/16")}

func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func TestRequestsAndConnectionsComeFromManySources(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	to := serve(t, func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		mu.Lock()
		seen[host] = true
		mu.Unlock()
		fmt.Fprintln(w, "hello")
	})
	var shown atomic.Int32
	r := run(t, Config{TCP: to, Sources: loopback, Requests: 200, Connections: 100, Progress: func(s *Snapshot) { shown.Add(int32(len(s.Kinds))) }})
	if r.Failed() || len(r.Kinds) != 2 || r.Kinds[0].Name != Connections || r.Kinds[1].Name != Requests {
		t.Fatalf("%+v", r)
	}
	for i, k := range r.Kinds {
		want := uint64([]float64{50, 100}[i])
		if k.Begun > want+1 || k.Begun < want/3 || k.Done != k.Begun || k.Latencies.TotalCount() != int64(k.Done) {
			t.Errorf("%s: begun %d, done %d, want at most %d", k.Name, k.Begun, k.Done, want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if uint64(len(seen)) != r.Kinds[1].Done || !seen["127.1.0.1"] || shown.Load() == 0 {
		t.Errorf("%d requests from %d addresses, progress %d", r.Kinds[1].Done, len(seen), shown.Load())
	}
}

func TestWhatGoesWrongIsTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(ln.Addr().String())
	ln.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		name string
		to   netip.AddrPort
		want string
	}{
		{"refused", nobody, Refused},
		{"no such page", serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) }), Wrong},
		{"cut", serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "not so much")
		}), Ended},
		{"silent", netip.MustParseAddrPort(silent.Addr().String()), Timeout},
	} {
		r := run(t, Config{TCP: tt.to, Requests: 50, Time: 200 * time.Millisecond, Timeout: 300 * time.Millisecond})
		if k := r.Kinds[0]; k.Done != 0 || k.Failed() != k.Begun || k.Failures[tt.want] != k.Begun || !r.Failed() {
			t.Errorf("%s: %d done, failures %v, want %d %s", tt.name, k.Done, k.Failures, k.Begun, tt.want)
		}
	}
}

// A server that stalls makes everything late that was to begin meanwhile, whether or not there was room for it.
func TestLatencyCountsFromTheIntendedStart(t *testing.T) {
	var stall sync.RWMutex
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		stall.RLock()
		defer stall.RUnlock()
		fmt.Fprintln(w, "hello")
	})
	stall.Lock()
	time.AfterFunc(500*time.Millisecond, stall.Unlock)
	r := run(t, Config{TCP: to, Requests: 100, Time: time.Second})
	k := r.Kinds[0]
	if k.Failed() > 0 || k.Begun < 30 {
		t.Fatalf("%+v", k)
	}
	if late := micros(k.Latencies.ValueAtQuantile(80)); late < 100*time.Millisecond {
		t.Errorf("nearly half of the requests came into a stall of half a second, but four fifths took no longer than %v", late)
	}
}

func TestBeyondTheMostUnderWayThingsFail(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := run(t, Config{TCP: netip.MustParseAddrPort(silent.Addr().String()), Requests: 100, Most: 3, Time: 300 * time.Millisecond, Timeout: 300 * time.Millisecond})
	if k := r.Kinds[0]; k.Failures[Late] == 0 || k.Failed() != k.Begun {
		t.Errorf("%+v", k.Failures)
	}
}

func TestHeldConnectionsAreAskedAtTheEnd(t *testing.T) {
	var open atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
	var conns sync.Map
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Store(open.Add(1), c)
		}
	}
	s.Start()
	defer s.Close()
	to := netip.MustParseAddrPort(s.Listener.Addr().String())
	r := run(t, Config{TCP: to, Hold: 20, Sources: loopback})
	if k := r.Kinds[0]; k.Begun != 20 || k.Done != 20 || r.Failed() || k.Latencies.TotalCount() != 20 {
		t.Errorf("%+v", k)
	}
	open.Store(0)
	time.AfterFunc(700*time.Millisecond, func() {
		c, _ := conns.Load(int32(1))
		c.(net.Conn).Close()
	})
	r = run(t, Config{TCP: to, Hold: 10, Time: 1500 * time.Millisecond})
	if k := r.Kinds[0]; k.Done != 9 || k.Failed() != 1 {
		t.Errorf("one of ten was closed: %d done, %v", k.Done, k.Failures)
	}
}

// echo answers datagrams as answers says.
func echo(t *testing.T, answers func(n int, b []byte) [][]byte) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			for _, a := range answers(i, bytes.Clone(b[:n])) {
				_, _ = pc.WriteTo(a, from) // a test that misses it says so
			}
		}
	}()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

func TestDatagramsAreCheckedOneByOne(t *testing.T) {
	once := func(_ int, b []byte) [][]byte { return [][]byte{b} }
	for _, tt := range []struct {
		name    string
		answers func(int, []byte) [][]byte
		is      func(k *Kind) bool
	}{
		{"all come back", once, func(k *Kind) bool { return k.Done == k.Begun && k.Failed() == 0 && k.Duplicates+k.Reordered == 0 }},
		{"behind a name", func(_ int, b []byte) [][]byte { return [][]byte{append([]byte("rs1: "), b...)} },
			func(k *Kind) bool { return k.Done == k.Begun && k.Failed() == 0 }},
		{"every fifth is lost", func(n int, b []byte) [][]byte {
			if n%5 == 0 {
				return nil
			}
			return [][]byte{b}
		}, func(k *Kind) bool {
			return k.Failures[Lost] > 0 && k.Failures[Lost] == (k.Begun+4)/5 && k.Done+k.Failed() == k.Begun
		}},
		{"twice", func(_ int, b []byte) [][]byte { return [][]byte{b, b} }, func(k *Kind) bool {
			return k.Done == k.Begun && k.Failed() == 0 && k.Duplicates > k.Begun/2 && k.Duplicates <= k.Begun
		}},
		{"one bit flipped", func(_ int, b []byte) [][]byte { b[len(b)-1] ^= 1; return [][]byte{b} },
			func(k *Kind) bool {
				return k.Done == 0 && k.Failures[Corrupt] == k.Begun && k.Failures[Lost] == k.Begun
			}},
		{"cut", func(_ int, b []byte) [][]byte { return [][]byte{b[:10]} }, func(k *Kind) bool { return k.Failures[Corrupt] == k.Begun }},
	} {
		r := run(t, Config{UDP: echo(t, tt.answers), Datagrams: 200, Sources: loopback, Flows: 3, Time: 300 * time.Millisecond, Timeout: 500 * time.Millisecond})
		if k := &r.Kinds[0]; k.Begun < 10 || !tt.is(k) {
			t.Errorf("%s: %d begun, %d done, %v, %d again, %d reordered", tt.name, k.Begun, k.Done, k.Failures, k.Duplicates, k.Reordered)
		}
	}
}

func TestReorderedDatagramsAreToldApart(t *testing.T) {
	var keep []byte
	to := echo(t, func(n int, b []byte) [][]byte {
		if n%2 == 0 {
			keep = b
			return nil
		}
		return [][]byte{b, keep}
	})
	r := run(t, Config{UDP: to, Datagrams: 200, Flows: 1, Time: 300 * time.Millisecond, Timeout: 500 * time.Millisecond})
	if k := &r.Kinds[0]; k.Reordered != k.Begun/2 || k.Duplicates != 0 || k.Failures[Lost] > 1 {
		t.Errorf("%d begun, %d reordered, %v", k.Begun, k.Reordered, k.Failures)
	}
}

func TestSourcesAreTheHostsOfTheirNetworks(t *testing.T) {
	s := &sources{[]netip.Prefix{netip.MustParsePrefix("10.0.0.252/30"), netip.MustParsePrefix("10.0.1.7/32"), netip.MustParsePrefix("10.0.0.0/23")}}
	for i, want := range map[uint64]string{0: "10.0.0.253", 1: "10.0.0.254", 2: "10.0.1.7", 3: "10.0.0.1", 258: "10.0.1.0", 512: "10.0.1.254", 513: "10.0.0.253"} {
		if got := s.at(i).String(); got != want {
			t.Errorf("source %d is %s, want %s", i, got, want)
		}
	}
	if s.count() != 513 {
		t.Errorf("%d sources, want 513", s.count())
	}
	six := &sources{[]netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}}
	if got := six.at(0x12345).String(); got != "2001:db8::1:2345" {
		t.Errorf("source of IPv6: %s", got)
	}
	if a := (&sources{}).at(3); a.IsValid() {
		t.Errorf("no source: %v", a)
	}
}

func TestSenselessLoadsAreRefused(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:1")
	for name, c := range map[string]Config{
		"nothing": {TCP: to}, "no target": {Requests: 1}, "no UDP target": {TCP: to, Datagrams: 1}, "families": {TCP: to, Requests: 1, Sources: []netip.Prefix{netip.MustParsePrefix("::1/128")}},
		"size": {UDP: to, Datagrams: 1, Size: 3}, "rate": {TCP: to, Requests: 1e9}, "negative": {TCP: to, Requests: 1, Connections: -1},
	} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestInterruptedLoadReportsWhatThereWas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked atomic.Int32
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
		if asked.Add(1) == 10 {
			cancel()
		}
	})
	r, err := Run(ctx, Config{TCP: to, UDP: echo(t, func(int, []byte) [][]byte { return nil }), Requests: 50, Datagrams: 50, Hold: 3, Time: time.Minute})
	if err != nil || !r.Partial || r.Took > 30*time.Second || r.Kinds[0].Begun == 0 {
		t.Fatalf("%v, %+v", err, r)
	}
	if f := r.Result("x"); !f.Partial || len(f.Scenarios) != 3 {
		t.Errorf("%+v", f)
	}
}

func TestReports(t *testing.T) {
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	r := run(t, Config{TCP: to, UDP: echo(t, func(_ int, b []byte) [][]byte { return [][]byte{b} }), Requests: 100, Datagrams: 100, Hold: 2})
	r.Kinds[0].Failures[Refused] = 3
	var b bytes.Buffer
	if err := r.Text(&b); err != nil || !strings.Contains(b.String(), "requests failed, refused: 3\n") || !strings.Contains(b.String(), "(2)") {
		t.Errorf("%v\n%s", err, &b)
	}
	b.Reset()
	f := r.Result("a server")
	if err := f.Encode(&b); err != nil {
		t.Fatal(err)
	}
	s := f.Scenarios[0]
	if s.Name != Requests || s.Rows[0].Values["rate"].Value <= 0 || s.Rows[0].Values["p99"].Value <= 0 || len(s.Curves) != 3 || s.Rows[0].Parts["failures"][0].Name != Refused {
		t.Errorf("%s", &b)
	}
}
