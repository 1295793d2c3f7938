package control

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/service"
)

// drains is a fixture whose clock stands until it is moved, and whose connection table cuts what it is told.
type drains struct {
	*fixture
	now  int64
	cuts int
}

func newDrains(t *testing.T) *drains {
	d := &drains{now: 1e9}
	d.fixture = newFixture(t, func(c *Config) { c.Now = func() int64 { return d.now } })
	d.conns.cut = func(doomed func(*service.RealServer) bool) (n conntrack.Cuts) {
		d.cuts++
		for _, vs := range d.Table().Services {
			for _, rs := range vs.Servers {
				for doomed(rs) && rs.Active() > 0 {
					rs.Unbind(true)
					n.Reset++
				}
			}
		}
		return n
	}
	d.must("-A "+web+" -s rr", "-A "+dns, "-A "+mark,
		"-a "+web+" -r 10.1.0.11 -w 3", "-a "+web+" -r 10.1.0.12", "-a "+dns+" -r 10.1.0.11 -w 2", "-a "+mark+" -r 10.1.0.11:0 -m -w 0")
	return d
}

func (d *drains) pass(t time.Duration) {
	for range int(t / time.Second) {
		d.now += int64(time.Second)
		d.WatchDrains()
	}
}

func (d *drains) weights() (w []int) {
	list, _ := d.Services(d.t.Context(), nil)
	for _, s := range list {
		for _, r := range s.Servers {
			w = append(w, r.Config.Weight)
		}
	}
	return w
}

func (d *drains) server(key, addr string) *service.RealServer {
	vs := d.vs(key)
	return vs.Servers[slices.IndexFunc(vs.Servers, func(rs *service.RealServer) bool { return rs.Addr == d.addr(addr) })]
}

var rip = netip.MustParseAddr("10.1.0.11")

func TestDrainTakesWeightsAndUndrainGivesThemBack(t *testing.T) {
	d := newDrains(t)
	rows, err := d.Drain(t.Context(), &api.DrainRequest{Address: rip})
	if err != nil || len(rows) != 3 || rows[1].Service.Protocol != api.TCP || rows[1].Weight != 3 || rows[1].State != api.Drained {
		t.Fatalf("Drain = %+v, %v", rows, err)
	}
	if w := d.weights(); !slices.Equal(w, []int{1, 0, 0, 0}) {
		t.Errorf("weights while it is drained: %v", w)
	}
	// Once more, for one service: the weight from before the first is what counts.
	key := api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("10.9.0.100"), Port: 80}
	ten := uint32(10)
	if rows, err = d.Drain(t.Context(), &api.DrainRequest{Address: rip, Port: 80, Service: &key, WithinSeconds: &ten}); err != nil ||
		len(rows) != 1 || rows[0].Weight != 3 || *rows[0].LeftSeconds != 10 {
		t.Errorf("Drain of one = %+v, %v", rows, err)
	}
	// A weight that somebody gives it in between is the newer decision.
	d.must("-e " + dns + " -r 10.1.0.11 -w 7")
	if rows, _ = d.Drains(t.Context()); len(rows) != 2 {
		t.Errorf("Drains = %+v", rows)
	}
	if rows, err = d.Undrain(t.Context(), &api.UndrainRequest{Address: rip}); err != nil || len(rows) != 2 {
		t.Errorf("Undrain = %+v, %v", rows, err)
	}
	if w := d.weights(); !slices.Equal(w, []int{1, 3, 7, 0}) {
		t.Errorf("weights in the end: %v", w)
	}
	for _, err := range []error{
		second(d.Undrain(t.Context(), &api.UndrainRequest{Address: rip})),
		second(d.Drain(t.Context(), &api.DrainRequest{Address: netip.MustParseAddr("10.1.0.99")})),
		second(d.Drain(t.Context(), &api.DrainRequest{Address: rip, Port: 8080})),
	} {
		if !errors.Is(err, api.ServerNotFound) {
			t.Errorf("of a server that there is not: %v", err)
		}
	}
	key.Port = 81
	if _, err := d.Drain(t.Context(), &api.DrainRequest{Address: rip, Service: &key}); !errors.Is(err, api.ServiceNotFound) {
		t.Errorf("of a service that there is not: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestDrainCutsAtItsDeadlineAndNotBefore(t *testing.T) {
	d := newDrains(t)
	rs := d.server(web, "10.1.0.11:80")
	other := d.server(web, "10.1.0.12:80")
	for range 5 {
		rs.Bind(true)
		other.Bind(true)
	}
	seconds := uint32(30)
	req := &api.DrainRequest{Address: rip, WithinSeconds: &seconds}
	if _, err := d.Drain(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	d.pass(10 * time.Second)
	rs.Unbind(true)
	rs.Unbind(true)
	d.pass(19 * time.Second)
	rows, _ := d.Drains(t.Context())
	if r := rows[1]; d.cuts != 0 || r.State != api.Draining || r.Active != 3 || r.Ended != 2 || *r.LeftSeconds != 1 || r.EmptyInSeconds == nil {
		t.Errorf("a second before the deadline: %d cuts, %+v", d.cuts, r)
	}
	d.pass(2 * time.Second)
	rows, _ = d.Drains(t.Context())
	if r := rows[1]; d.cuts != 1 || r.State != api.Drained || r.Active != 0 || r.Ended != 2 || r.Cut != 3 || other.Active() != 5 {
		t.Errorf("a second after: %d cuts, %+v, the other server has %d", d.cuts, r, other.Active())
	}
	rs.Bind(true) // a straggler: one that was being scheduled when the drain began
	d.pass(time.Second)
	if rs.Active() != 0 {
		t.Errorf("a straggler stays")
	}

	// Called off, and for a server that has got a weight again, nothing is cut.
	other.Bind(true)
	again := &api.DrainRequest{Address: netip.MustParseAddr("10.1.0.12"), WithinSeconds: &seconds}
	if _, err := d.Drain(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	again.WithinSeconds = nil
	if _, err := d.Drain(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	d.pass(time.Minute)
	again.WithinSeconds = &seconds
	if _, err := d.Drain(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	d.must("-e " + web + " -r 10.1.0.12 -w 1")
	d.pass(time.Minute)
	if other.Active() != 6 {
		t.Errorf("%d connections are left of 6", other.Active())
	}
	none := uint32(0)
	again.WithinSeconds = &none
	if rows, err := d.Drain(t.Context(), again); err != nil || rows[0].State != api.Drained || rows[0].Cut != 6 {
		t.Errorf("cut now: %+v, %v", rows, err)
	}
}

// The estimate is right, on average, for lives of one mean, seen from before the drain as from within.
func TestLifetimeTellsWhenAServerWillBeEmpty(t *testing.T) {
	var l lifetime
	l.begin(100, 10<<pktShift, 0)
	if d, ok := l.empty(); !ok || d < 50*time.Second || d > 53*time.Second { // ten seconds each, H(100) = 5.19
		t.Errorf("100 connections, ten a second: empty in %v", d)
	}
	l = lifetime{}
	l.begin(1000, 0, 0)
	if _, ok := l.empty(); ok {
		t.Error("it knows when connections end of which none has ended yet")
	}
	now, left := int64(0), 1000.0
	for range 30 { // a hundredth ends each second
		now += int64(time.Second)
		left *= 0.99
		l.observe(uint64(left), now)
	}
	if d, ok := l.empty(); !ok || d < 620*time.Second || d > 780*time.Second { // ln(740) + 0.58 lives of 100 s
		t.Errorf("740 connections of 100 s: empty in %v", d)
	}
	if ended := l.observe(0, now+1e9); ended != uint64(left) {
		t.Errorf("%d ended", ended)
	}
	if d, ok := l.empty(); !ok || d != 0 {
		t.Errorf("without connections it is empty in %v", d)
	}
}
