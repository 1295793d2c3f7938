package control

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"uvs/control/api"
	"uvs/health"
	"uvs/service"
)

// drain is a real server that is being drained. All is guarded by Director.mu.
type drain struct {
	rs          *service.RealServer
	key         service.Key
	addr        netip.AddrPort
	weight      int32         // to be given back
	persistence time.Duration // of its service
	began       int64         // as of Config.Now, like deadline
	deadline    int64         // when the rest is cut; 0 is never
	ended, cut  uint64
	life        lifetime
}

// Drain implements api.Backend.
func (d *Director) Drain(ctx context.Context, r *api.DrainRequest) ([]api.Drain, error) {
	rows, err := d.drain(ctx, r)
	if err == nil && r.WithinSeconds != nil && *r.WithinSeconds == 0 {
		d.WatchDrains()
		d.mu.Lock()
		defer d.mu.Unlock()
		rows = d.drainsLocked(func(x *drain) bool {
			return slices.ContainsFunc(rows, func(row api.Drain) bool {
				return row.Service == apiKey(x.key) && row.Server.Address == x.addr.Addr() && row.Server.Port == x.addr.Port()
			})
		})
	}
	return rows, err
}

func (d *Director) drain(ctx context.Context, r *api.DrainRequest) ([]api.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	chosen, err := d.chooseLocked(r.Address, r.Port, r.Service)
	if err != nil {
		return nil, tried(err, "drain real server %v", serverText(r.Address, r.Port))
	}
	var ops []api.Op
	weights := make([]int32, len(chosen))
	for i, c := range chosen {
		weights[i] = c.server.config.weight
		if weights[i] != 0 {
			ops = append(ops, c.edit(0))
		}
	}
	if err := d.changeLocked(&api.ChangeRequest{Ops: ops, OnError: api.Atomic}).Err(); err != nil {
		return nil, tried(err, "drain real server %v", serverText(r.Address, r.Port))
	}
	now := d.cfg.Now()
	for i, c := range chosen {
		x := d.drains[c.server.rs]
		if x == nil {
			x = &drain{rs: c.server.rs, key: c.service.key, addr: c.server.rs.Addr, began: now, persistence: c.service.config.persistence}
			x.life.begin(x.connections(), d.stats.servers[x.rs.Index].rate.conns, now)
			d.drains[x.rs] = x
		}
		if weights[i] != 0 {
			x.weight = weights[i]
		}
		if x.deadline = 0; r.WithinSeconds != nil {
			x.deadline = now + int64(*r.WithinSeconds)*int64(time.Second)
		}
		d.cfg.Log.Info("real server is drained", append(names(c.service, c.server), zap.Int32("weight", x.weight),
			zap.Uint64("connections", x.connections()))...)
	}
	return d.drainsLocked(func(x *drain) bool {
		return slices.ContainsFunc(chosen, func(c chosenServer) bool { return c.server.rs == x.rs })
	}), nil
}

// chosenServer is a real server that a request means.
type chosenServer struct {
	service *virtual
	server  *server
}

// edit is the operation that gives it a weight.
func (c chosenServer) edit(weight int32) api.Op {
	key, config := apiKey(c.service.key), c.server.config.api()
	config.Weight = int(weight)
	a := c.server.rs.Addr
	return api.Op{Kind: api.EditServer, Service: &key, Server: &api.ServerKey{Address: a.Addr(), Port: a.Port()}, ServerConfig: &config}
}

// chooseLocked finds the real servers of an address, of one port or all, in one service or all.
func (d *Director) chooseLocked(addr netip.Addr, port uint16, only *api.ServiceKey) (chosen []chosenServer, err error) {
	services := d.order
	if only != nil {
		v := d.services[keyOf(only)]
		if v == nil {
			return nil, errNoService
		}
		services = []*virtual{v}
	}
	for _, v := range services {
		for _, s := range v.all() {
			if a := s.rs.Addr; a.Addr() == addr && (port == 0 || a.Port() == port) {
				chosen = append(chosen, chosenServer{v, s})
			}
		}
	}
	if chosen == nil {
		return nil, errNoServer
	}
	return chosen, nil
}

func serverText(addr netip.Addr, port uint16) string {
	if port == 0 {
		return addr.String()
	}
	return netip.AddrPortFrom(addr, port).String()
}

// Drains implements api.Backend.
func (d *Director) Drains(ctx context.Context) ([]api.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drainsLocked(func(*drain) bool { return true }), ctx.Err()
}

// Undrain implements api.Backend. A server that has a weight again by other means keeps it.
func (d *Director) Undrain(ctx context.Context, r *api.UndrainRequest) ([]api.Drain, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	chosen, err := d.chooseLocked(r.Address, r.Port, r.Service)
	if err == nil {
		d.reviewLocked(d.cfg.Now())
		chosen = slices.DeleteFunc(chosen, func(c chosenServer) bool { return d.drains[c.server.rs] == nil })
		if len(chosen) == 0 {
			err = refusal(api.ServerNotFound, "it is not being drained")
		}
	}
	if err != nil {
		return nil, tried(err, "undrain real server %v", serverText(r.Address, r.Port))
	}
	var ops []api.Op
	for _, c := range chosen {
		if w := d.drains[c.server.rs].weight; w != 0 {
			ops = append(ops, c.edit(w))
		}
	}
	rows := d.drainsLocked(func(x *drain) bool {
		return slices.ContainsFunc(chosen, func(c chosenServer) bool { return c.server.rs == x.rs })
	})
	if err := d.changeLocked(&api.ChangeRequest{Ops: ops, OnError: api.Atomic}).Err(); err != nil {
		return nil, tried(err, "undrain real server %v", serverText(r.Address, r.Port))
	}
	for _, c := range chosen {
		delete(d.drains, c.server.rs)
	}
	return rows, nil
}

// WatchDrains looks at the servers that are being drained, and cuts what those still have whose time is up. Run calls it
// every second.
func (d *Director) WatchDrains() {
	d.cutting.Lock()
	defer d.cutting.Unlock()
	now := d.cfg.Now()
	d.mu.Lock()
	d.reviewLocked(now)
	due := map[*service.RealServer]uint64{} // connections before
	for rs, x := range d.drains {
		if x.due(now) && rs.Refs() > 0 {
			due[rs] = x.connections()
		}
	}
	d.mu.Unlock()
	if len(due) == 0 {
		return
	}
	// Without mu: it goes through the whole table. None of the servers gets a weight meanwhile that is meant to keep its
	// connections, or somebody has asked for both at once.
	d.cfg.Connections.Cut(func(rs *service.RealServer) bool { _, is := due[rs]; return is }, now)
	d.mu.Lock()
	defer d.mu.Unlock()
	for rs, before := range due {
		if x := d.drains[rs]; x != nil {
			left := x.connections()
			n := max(before, left) - left
			x.cut += n
			x.life.last = left
			d.cfg.Log.Info("real server's connections were cut: its time was up", zap.Stringer("server", rs), zap.Uint64("cut", n),
				zap.Uint64("left", left))
		}
	}
}

// reviewLocked brings drains up to date and forgets those that are none any more: the server has got a weight, or it was
// removed and is empty.
func (d *Director) reviewLocked(now int64) {
	for rs, x := range d.drains {
		_, s := d.subjectLocked(health.Subject{Service: x.key, Server: x.addr})
		if s != nil && s.rs == rs {
			if s.config.weight != 0 {
				delete(d.drains, rs)
				continue
			}
		} else if rs.Refs() == 0 {
			delete(d.drains, rs)
			continue
		}
		x.ended += x.life.observe(x.connections(), now)
	}
}

// drainsLocked describes drains, in the order of services and addresses.
func (d *Director) drainsLocked(which func(*drain) bool) []api.Drain {
	now := d.cfg.Now()
	d.reviewLocked(now)
	rows := []api.Drain{}
	for _, x := range d.drains {
		if which(x) {
			row := x.describe(now)
			if v := d.services[x.key]; v != nil {
				row.ServiceLabel = v.label
				if s := v.servers[x.addr]; s != nil {
					row.ServerLabel = s.label
				}
			}
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b api.Drain) int {
		return cmp.Or(cmp.Compare(a.Service.String(), b.Service.String()), a.Server.Address.Compare(b.Server.Address),
			cmp.Compare(a.Server.Port, b.Server.Port))
	})
	return rows
}

func (x *drain) connections() uint64 { return count(x.rs.Active()) + count(x.rs.Inactive()) }

func (x *drain) due(now int64) bool { return x.deadline != 0 && now >= x.deadline }

func (x *drain) describe(now int64) api.Drain {
	row := api.Drain{
		Service: apiKey(x.key), Server: api.ServerKey{Address: x.addr.Addr(), Port: x.addr.Port()}, Weight: int(x.weight),
		State: api.Draining, Active: count(x.rs.Active()), Inactive: count(x.rs.Inactive()), Persistent: count(x.rs.Persistent()),
		Ended: x.ended, Cut: x.cut, ElapsedSeconds: uint32((now - x.began) / int64(time.Second)),
	}
	if x.deadline != 0 {
		left := uint32((max(x.deadline-now, 0) + int64(time.Second) - 1) / int64(time.Second))
		row.LeftSeconds = &left
	}
	eta, known := x.life.empty()
	switch {
	case row.Active+row.Inactive+row.Persistent == 0:
		row.State, eta, known = api.Drained, 0, true
	case x.due(now):
		row.State = api.Cutting
	}
	if row.Persistent > 0 { // a template outlives its last connection by its timeout
		eta += x.persistence
		known = known || row.Active+row.Inactive == 0
	}
	if known {
		seconds := uint32(min(math.Ceil(eta.Seconds()), math.MaxUint32))
		row.EmptyInSeconds = &seconds
	}
	return row
}
