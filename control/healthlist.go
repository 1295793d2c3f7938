package control

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"uvs/control/api"
	"uvs/health"
	"uvs/service"
)

// Health implements api.Backend.
func (d *Director) Health(ctx context.Context, key *api.ServiceKey) ([]api.ServerHealth, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	services := d.order
	if key != nil {
		v := d.services[keyOf(key)]
		if v == nil {
			return nil, tried(errNoService, "list health of %v", key)
		}
		services = []*virtual{v}
	}
	rows := []api.ServerHealth{}
	for _, v := range services {
		for _, s := range v.all() {
			rows = append(rows, d.healthLocked(v, s))
		}
	}
	return rows, nil
}

func (d *Director) healthLocked(v *virtual, s *server) api.ServerHealth {
	h := &s.health
	_, weight := effectiveLocked(v, s)
	row := api.ServerHealth{
		Service: apiKey(v.key), Server: api.ServerKey{Address: s.rs.Addr.Addr(), Port: s.rs.Addr.Port()},
		ServiceLabel: v.label, ServerLabel: s.label, State: api.Unknown, Serving: h.serving, Why: h.why, ConfiguredWeight: int(s.config.weight), Weight: int(weight), Checks: []api.CheckHealth{},
	}
	if s.watched {
		row.State = stateNames[h.standing.State]
		for _, r := range d.engine.Reports(subjectOf(v, s.rs)) {
			if r.Factored {
				row.Factors = append(row.Factors, api.WeightFactor{By: r.ID, Factor: r.Factor})
			}
			row.Checks = append(row.Checks, checkHealth(&r))
		}
	}
	if share := v.slow.Share(s.rs, d.cfg.Now()); share < 1 {
		row.Factors = append(row.Factors, api.WeightFactor{By: "slow start", Factor: share})
	}
	for _, by := range slices.Sorted(maps.Keys(h.factors)) {
		row.Factors = append(row.Factors, api.WeightFactor{By: by, Factor: h.factors[by]})
	}
	return row
}

func checkHealth(r *health.Report) api.CheckHealth {
	out := api.CheckHealth{
		ID: r.ID, Kind: r.Kind, State: stateNames[r.State], Address: r.Route.To, ThroughVIP: r.Route.VIP, Shared: r.Shared,
		InRow: r.InRow, Suspected: r.Suspected, Changes: make([]api.StateChange, 0, len(r.Changes)),
	}
	if !r.Last.Time.IsZero() {
		last := outcome(&r.Last)
		out.Last = &last
	}
	for _, c := range slices.Backward(r.Changes) {
		out.Changes = append(out.Changes, api.StateChange{Time: c.Time.UTC(), To: stateNames[c.To], Why: c.Why})
	}
	return out
}

func outcome(r *health.Result) api.ProbeOutcome {
	return api.ProbeOutcome{Time: r.Time.UTC(), Milliseconds: milliseconds(r.Took), OK: r.OK, Text: r.Text, Unable: r.Unable}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Limits of a test of checks: how much of one exchange it keeps and of all together, how long one check may take, and how many
// are made at once.
const (
	maxExchange  = 1 << 20
	maxExchanges = 16 << 20
	maxTest      = 20 * time.Second
	testsAtOnce  = 1000
)

// TestChecks implements api.Backend.
func (d *Director) TestChecks(ctx context.Context, r *api.CheckTestRequest) ([]api.CheckTest, error) {
	probes, err := d.chooseChecks(r)
	if err != nil {
		return nil, tried(err, "test checks of %v", r.Service)
	}
	var running errgroup.Group
	running.SetLimit(testsAtOnce)
	out := make([]api.CheckTest, len(probes))
	var room atomic.Int64
	room.Store(maxExchanges)
	for i, p := range probes {
		running.Go(func() error {
			out[i] = d.testCheck(ctx, p, &room)
			return ctx.Err()
		})
	}
	return out, running.Wait()
}

// chosenCheck is a check to be tested.
type chosenCheck struct {
	rs    *service.RealServer
	spec  *health.Spec
	route health.Route
}

// chooseChecks finds the checks that a request means.
func (d *Director) chooseChecks(r *api.CheckTestRequest) ([]chosenCheck, error) {
	var given []check
	if r.Spec != nil {
		c, err := decodeCheck(r.Spec)
		if err != nil {
			return nil, err
		}
		given = []check{c}
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.services[keyOf(&r.Service)]
	if v == nil {
		return nil, errNoService
	}
	servers := v.all()
	if r.Server != nil {
		servers = slices.DeleteFunc(servers, func(s *server) bool {
			return s.rs.Addr.Addr() != r.Server.Address || s.rs.Addr.Port() != r.Server.Port
		})
		if len(servers) == 0 {
			return nil, errNoServer
		}
	}
	chosen := []chosenCheck{}
	for _, s := range servers {
		checks := given
		if checks == nil {
			checks = s.checksOf(v)
		}
		for _, c := range checks {
			if r.ID == "" || c.spec.ID == r.ID {
				chosen = append(chosen, chosenCheck{s.rs, c.spec, d.engine.Route(v.key, s.rs, s.rs.Method(), c.spec)})
			}
		}
	}
	if len(chosen) == 0 && len(servers) > 0 {
		return nil, errNoCheck
	}
	return chosen, nil
}

// testCheck makes one check and notes what was said, as long as there is room.
func (d *Director) testCheck(ctx context.Context, c chosenCheck, room *atomic.Int64) api.CheckTest {
	ctx, cancel := context.WithTimeout(ctx, maxTest)
	defer cancel()
	t := api.CheckTest{
		Server: api.ServerKey{Address: c.rs.Addr.Addr(), Port: c.rs.Addr.Port()}, ID: c.spec.ID,
		Address: c.route.To, ThroughVIP: c.route.VIP, Exchange: []api.ExchangePiece{},
	}
	var mu sync.Mutex
	var size int
	began := time.Now()
	r := d.engine.Test(ctx, &c.route, c.spec, func(sent bool, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		data = data[:min(len(data), maxExchange-size)]
		if size += len(data); len(data) == 0 || room.Add(-int64(len(data))) < 0 {
			return
		}
		t.Exchange = append(t.Exchange, api.ExchangePiece{Sent: sent, Milliseconds: milliseconds(time.Since(began)), Data: slices.Clone(data)})
	})
	mu.Lock()
	defer mu.Unlock()
	t.Outcome = outcome(&r)
	return t
}
