package control

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/packet"
	"uvs/service"
)

// shadowWorld is a Director with the real connection table and connections that a test makes.
type shadowWorld struct {
	*Director
	t     *testing.T
	conns *conntrack.Table
	now   int64
}

var shadowKey = api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("10.9.0.100"), Port: 80}

func newShadowWorld(t *testing.T, lines ...string) *shadowWorld {
	t.Helper()
	w := &shadowWorld{t: t, now: int64(time.Hour)}
	index := new(service.ServerIndex)
	table, err := conntrack.New(conntrack.Config{Servers: index, Shards: 4})
	if err != nil {
		t.Fatal(err)
	}
	w.conns = table
	w.Director = New(Config{
		Servers: index, Connections: table, Watched: table, Counters: &fakeCounters{services: map[uint32]service.Counters{}, servers: map[uint32]service.Counters{}},
		Now: func() int64 { return w.now },
	})
	w.change(lines...)
	return w
}

func (w *shadowWorld) change(lines ...string) {
	w.t.Helper()
	if len(lines) == 0 {
		return
	}
	reply, err := w.Change(w.t.Context(), &api.ChangeRequest{Ops: ops(lines...), OnError: api.Atomic})
	if err != nil || reply.Err() != nil {
		w.t.Fatal(err, reply.Err())
	}
}

func (w *shadowWorld) shadow(r api.ShadowRequest) (*api.ShadowsReply, error) {
	r.Service = shadowKey
	return w.Shadow(w.t.Context(), &r)
}

func (w *shadowWorld) must(r api.ShadowRequest) *api.ShadowsReply {
	w.t.Helper()
	reply, err := w.shadow(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply
}

func clientFlow(client, port int) packet.Flow {
	return packet.Flow{
		Src: packet.AddrFrom4(0xc0000200 + uint32(client)), SrcPort: uint16(port), Dst: packet.AddrFrom(shadowKey.Address), DstPort: 80, Proto: packet.ProtoTCP,
	}
}

// open does what the packet path does with a SYN.
func (w *shadowWorld) open(f packet.Flow, template conntrack.ID) (conntrack.Conn, *service.RealServer) {
	w.t.Helper()
	var c conntrack.Conn
	vs := w.Table().Service(keyOf(&shadowKey))
	rs := vs.Scheduler.Pick(&service.Request{Service: vs, Flow: f, Now: w.now}, vs.Servers)
	if rs == nil {
		if vs.Watched {
			w.conns.Refuse(&f, vs.Index, w.now)
		}
		return c, nil
	}
	n := conntrack.NewConn{Flow: f, Server: rs.IP, ServerPort: 80, Method: rs.Method(), Service: vs.Index, RS: rs, Template: template, Event: packet.TCPSyn, Now: w.now}
	if vs.Watched {
		n.Flags = conntrack.Watched
	}
	if o := w.conns.Insert(&n, &c); o != conntrack.Inserted {
		w.t.Fatalf("insert: %v", o)
	}
	return c, rs
}

func (w *shadowWorld) report() *api.ShadowsReply {
	w.t.Helper()
	reply, err := w.Shadows(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return reply
}

var twoServers = []string{"-A -t 10.9.0.100:80 -s rr", "-a -t 10.9.0.100:80 -r 10.1.0.11:80", "-a -t 10.9.0.100:80 -r 10.1.0.12:80"}

func TestShadowsAreOfferedWhatReallyHappens(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	w.open(clientFlow(1, 1), 0) // before anybody is on trial: nobody knows of it
	first := w.must(api.ShadowRequest{Add: []string{"fo", "wlc"}})
	if len(first.Shadows) != 1 || len(first.Shadows[0].Trials) != 3 || !w.Table().Service(keyOf(&shadowKey)).Watched {
		t.Fatalf("%+v", first)
	}
	var flows []packet.Flow
	for i := range 100 {
		f := clientFlow(i, 1000)
		flows = append(flows, f)
		w.open(f, 0)
	}
	r := w.report().Shadows[0]
	real, fo, wlc := r.Trials[0], r.Trials[1], r.Trials[2]
	if !real.Real || real.Scheduler != "rr" || r.Scheduler != "rr" || real.Offered != 100 || real.Differs != 0 || real.Servers[0].Conns != 50 || real.Servers[0].Active != 50 {
		t.Errorf("real: %+v", real)
	}
	if fo.Scheduler != "fo" || fo.Differs != 50 || fo.New.MaxMean != 2 || fo.Servers[0].Peak+fo.Servers[1].Peak != 100 {
		t.Errorf("fo: %+v", fo)
	}
	if wlc.New.MaxMean != 1 || wlc.Servers[1].Active != 50 {
		t.Errorf("wlc: %+v", wlc)
	}
	// They close: the counts of every trial follow.
	var c conntrack.Conn
	for i := range flows {
		w.conns.In(&flows[i], packet.TCPFin|packet.TCPAck, w.now, &c)
	}
	for _, trial := range w.report().Shadows[0].Trials {
		active, inactive := uint64(0), uint64(0)
		for _, s := range trial.Servers {
			active, inactive = active+s.Active, inactive+s.Inactive
		}
		if active != 0 || inactive != 100 {
			t.Errorf("%s: %d active and %d inactive after all have closed", trial.Scheduler, active, inactive)
		}
	}
	w.now += int64(time.Hour)
	for w.conns.Advance(w.now, 1000) {
	}
	for _, trial := range w.report().Shadows[0].Trials {
		if s := trial.Servers[0]; s.Active+s.Inactive != 0 {
			t.Errorf("%s: %+v after all have gone", trial.Scheduler, s)
		}
	}
	if len(w.shadows.conns) != 0 {
		t.Errorf("%d connections are still followed", len(w.shadows.conns))
	}
}

func TestShadowsSeeChangesOfServers(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	w.must(api.ShadowRequest{Add: []string{"mh"}})
	for i := range 50 {
		w.open(clientFlow(i, 1000), 0)
	}
	w.report() // time passes between connections and changes
	w.change("-d -t 10.9.0.100:80 -r 10.1.0.11:80", "-a -t 10.9.0.100:80 -r 10.1.0.13:80 -w 3")
	for i := range 50 {
		w.open(clientFlow(i, 2000), 0)
	}
	trial := w.report().Shadows[0].Trials[1]
	if trial.Returning != 50 || trial.AfterChange != 50 || trial.MovedByChange < 10 || trial.MovedByChange == 50 || len(trial.Servers) != 3 {
		t.Errorf("%+v", trial)
	}
	if s := trial.Servers; s[0].Address.Addr().String() != "10.1.0.13" || s[0].Weight != 3 || !s[2].Removed {
		t.Errorf("servers %+v", s)
	}
	w.change("-e -t 10.9.0.100:80 -r 10.1.0.12:80 -w 0", "-e -t 10.9.0.100:80 -r 10.1.0.13:80 -w 0")
	if _, rs := w.open(clientFlow(1, 3000), 0); rs != nil {
		t.Fatal("a quiesced server was picked")
	}
	if trials := w.report().Shadows[0].Trials; trials[0].Misses != 1 || trials[1].Misses != 1 || trials[1].Differs != trial.Differs {
		t.Errorf("a connection without server: %+v", trials)
	}
	w.change("-D -t 10.9.0.100:80")
	if r := w.report(); len(r.Shadows) != 0 || len(w.shadows.groups) != 0 {
		t.Errorf("the service is gone, its trials are not: %+v", r)
	}
}

func TestClientsOfATemplateStayInEveryTrial(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	w.must(api.ShadowRequest{Add: []string{"wlc"}})
	var c conntrack.Conn
	vs := w.Table().Service(keyOf(&shadowKey))
	o := w.conns.InsertTemplate(&conntrack.NewTemplate{
		TemplateKey: conntrack.TemplateKey{Client: packet.AddrFrom4(1), Virtual: packet.AddrFrom4(2)}, Server: vs.Servers[0].IP, RS: vs.Servers[0], Timeout: time.Minute, Now: w.now,
	}, &c)
	if o != conntrack.Inserted {
		t.Fatal(o)
	}
	for i := range 10 {
		w.open(clientFlow(1, 1000+i), c.ID)
	}
	if trial := w.report().Shadows[0].Trials[1]; trial.Offered != 10 || trial.New.MaxMean != 2 {
		t.Errorf("%+v", trial)
	}
}

func TestTrialsAreAddedAndRemovedAllOrNone(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	for _, bad := range []api.ShadowRequest{
		{Add: []string{"rr", "nosuch"}}, {Add: []string{"rr", "rr"}}, {Add: []string{"none"}}, {Add: []string{"real"}}, {Remove: []string{"rr"}},
		{Add: []string{"rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "dh", "sh"}}, {Add: []string{"mh:sh-port"}},
	} {
		if _, err := w.shadow(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
		if n := len(w.report().Shadows); n != 0 {
			t.Errorf("%+v left %d services with trials", bad, n)
		}
	}
	if _, err := w.Shadow(t.Context(), &api.ShadowRequest{Service: api.ServiceKey{Protocol: api.UDP, Address: shadowKey.Address, Port: 1}, Add: []string{"rr"}}); err == nil {
		t.Error("a service that isn't there was taken")
	}
	names := func(r *api.ShadowsReply) (list []string) {
		for _, s := range r.Shadows {
			for _, x := range s.Trials {
				list = append(list, x.Scheduler)
			}
		}
		return list
	}
	w.must(api.ShadowRequest{Add: []string{"wlc", "sh:sh-port,sh-fallback"}})
	w.open(clientFlow(1, 1), 0)
	r := w.must(api.ShadowRequest{Remove: []string{"wlc"}, Add: []string{"lc"}})
	if want := []string{"rr", "lc", "sh:sh-fallback,sh-port"}; !reflect.DeepEqual(names(r), want) {
		t.Errorf("trials %q, want %q", names(r), want)
	}
	w.now += int64(time.Hour)
	for w.conns.Advance(w.now, 1000) {
	}
	for _, x := range w.report().Shadows[0].Trials {
		if slices.ContainsFunc(x.Servers, func(s api.ShadowServer) bool { return s.Active+s.Inactive != 0 }) {
			t.Errorf("%s has connections that ended: %+v", x.Scheduler, x.Servers)
		}
	}
	r = w.must(api.ShadowRequest{End: true})
	if vs := w.Table().Service(keyOf(&shadowKey)); len(r.Shadows) != 0 || vs.Watched || w.shadows.conns != nil {
		t.Errorf("after the end: %+v, watched %v", r, vs.Watched)
	}
	w.change("-e -t 10.9.0.100:80 -r 10.1.0.11:80 -w 5") // the service goes on
	if _, rs := w.open(clientFlow(2, 2), 0); rs == nil {
		t.Error("no server after the trials")
	}
}

func TestWhatIsTooMuchForTrialsIsCountedAndMended(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	w.must(api.ShadowRequest{Add: []string{"wlc"}})
	var flows []packet.Flow
	for i := range 2000 { // more than the table keeps for a watcher that doesn't look
		f := clientFlow(i%200, 1000+i)
		flows = append(flows, f)
		w.open(f, 0)
	}
	r := w.report()
	if r.Missed == 0 || r.Shadows[0].Trials[0].Offered+r.Missed != 2000 {
		t.Errorf("missed %d, offered %d of 2000", r.Missed, r.Shadows[0].Trials[0].Offered)
	}
	var c conntrack.Conn
	for range 3 { // and more changes of what is followed
		for i := range flows {
			w.conns.In(&flows[i], packet.TCPFin|packet.TCPAck, w.now, &c)
			w.conns.In(&flows[i], packet.TCPSyn, w.now, &c)
		}
	}
	w.now += int64(time.Hour)
	for w.conns.Advance(w.now, 1000) {
	}
	w.report()
	w.now += int64(shadowMend)
	for _, x := range w.report().Shadows[0].Trials {
		for _, s := range x.Servers {
			if s.Active+s.Inactive != 0 {
				t.Errorf("%s: %+v though all connections are gone", x.Scheduler, s)
			}
		}
	}
}

func TestTooManyConnectionsAreThinnedOutByClient(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	w.must(api.ShadowRequest{Add: []string{"wlc"}})
	for i := range 300 {
		w.open(clientFlow(i, 1000), 0)
		w.report()
	}
	w.shadows.mu.Lock()
	w.shadows.thin()
	left := len(w.shadows.conns)
	w.shadows.mu.Unlock()
	if left < 80 || left > 220 {
		t.Errorf("%d of 300 connections are left after the clients were halved", left)
	}
	r := w.report()
	held := uint64(0)
	for _, s := range r.Shadows[0].Trials[1].Servers {
		held += s.Active
	}
	if r.OneIn != 2 || held != uint64(left) {
		t.Errorf("one in %d, %d held, want 2 and %d", r.OneIn, held, left)
	}
}

func TestTrialsRunByThemselves(t *testing.T) {
	w := newShadowWorld(t, twoServers...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	w.must(api.ShadowRequest{Add: []string{"wlc"}})
	w.open(clientFlow(1, 1), 0)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		w.shadows.mu.Lock()
		n := len(w.shadows.conns)
		w.shadows.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody took the event")
		}
	}
	cancel()
	<-done
}
