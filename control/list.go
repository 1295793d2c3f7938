package control

import (
	"context"
	"net/netip"
	"slices"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/packet"
	"uvs/service"
)

var _ api.Backend = (*Director)(nil)

// Services implements api.Backend. Services come in the order they were added: the kernel's own order is that of a hash
// table with a random key, which is no order to keep.
func (d *Director) Services(ctx context.Context, key *api.ServiceKey) ([]api.Service, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if key != nil {
		v := d.services[keyOf(key)]
		if v == nil {
			return nil, tried(errNoService, "list virtual service %v", key)
		}
		return []api.Service{d.describeLocked(v)}, nil
	}
	list := make([]api.Service, len(d.order))
	for i, v := range d.order {
		list[i] = d.describeLocked(v)
	}
	return list, nil
}

func (d *Director) describeLocked(v *virtual) api.Service {
	out := api.Service{ServiceKey: apiKey(v.key), Label: v.label, Config: v.config.api(), Checks: specsOf(v.checks), Policy: v.policy.set, Quorum: d.quorumLocked(v),
		Servers: make([]api.Server, 0, len(v.servers)),
	}
	out.Stats, out.Rates = d.stats.services[v.index].shown()
	for _, s := range v.all() {
		rs := s.rs
		row := api.Server{
			ServerKey: api.ServerKey{Address: rs.Addr.Addr(), Port: rs.Addr.Port()}, Label: s.label, Config: s.config.api(), Checks: specsOf(s.checks),
			Removed: s.health.out, Active: count(rs.Active()), Inactive: count(rs.Inactive()), Persistent: count(rs.Persistent()),
		}
		if _, weight := effectiveLocked(v, s); weight != s.config.weight {
			w := int(weight)
			row.EffectiveWeight = &w
		}
		row.Stats, row.Rates = d.stats.servers[rs.Index].shown()
		out.Servers = append(out.Servers, row)
	}
	return out
}

// all are a service's servers: those in its list, in its order, and then those that health has taken out of it.
func (v *virtual) all() []*server {
	list := make([]*server, 0, len(v.servers))
	for _, rs := range v.list.all() {
		list = append(list, v.servers[rs.Addr])
	}
	if len(list) == len(v.servers) {
		return list
	}
	listed := len(list)
	for _, s := range v.servers {
		if s.health.out {
			list = append(list, s)
		}
	}
	slices.SortFunc(list[listed:], func(a, b *server) int { return a.rs.Addr.Compare(b.rs.Addr) })
	return list
}

// count shows a counter that two workers move one after the other: it may be below 0 for a moment.
func count(n int32) uint64 { return uint64(max(n, 0)) }

// Connections implements api.Backend.
func (d *Director) Connections(ctx context.Context, filter api.ConnectionFilter, yield func(*api.Connection) error) error {
	only := uint32(service.NoServer)
	if filter.Service != nil {
		d.mu.RLock()
		v := d.services[keyOf(filter.Service)]
		d.mu.RUnlock()
		if v == nil {
			return tried(errNoService, "list connections of %v", filter.Service)
		}
		only = v.index
	}
	now := d.cfg.Now()
	var err error
	d.cfg.Connections.Walk(now, func(c *conntrack.Conn) bool {
		if err = ctx.Err(); err != nil {
			return false
		}
		if filter.Service != nil && c.Service != only {
			return true
		}
		row := connection(c, now)
		if row.Template {
			if data := d.cfg.Connections.TemplateData(c.ID); data != "" {
				row.PersistenceEngine, row.PersistenceData = engines[0], data
			}
		}
		err = yield(row)
		return err == nil
	})
	return err
}

func connection(c *conntrack.Conn, now int64) *api.Connection {
	proto := c.Proto.String()
	if c.Proto == 0 {
		proto = api.IP
	}
	return &api.Connection{
		Protocol:       proto,
		Client:         addrPort(c.Client, c.ClientPort),
		Virtual:        addrPort(c.Virtual, c.VirtualPort),
		Server:         addrPort(c.Server, c.ServerPort),
		State:          c.State.String(),
		ExpiresSeconds: uint32(max(c.Expires-now, 0) / 1e9),
		Template:       c.Flags&conntrack.Template != 0,
	}
}

// addrPort keeps an all-zero address, of a masked client say, what it is; packet's own conversion makes it no address.
func addrPort(a packet.Addr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.As16()).Unmap(), port)
}

// Timeouts implements api.Backend.
func (d *Director) Timeouts(ctx context.Context) (api.Timeouts, error) {
	t := d.cfg.Connections.Timeouts()
	return api.Timeouts{
		TCP: uint32(t.TCP.Seconds()), TCPFin: uint32(t.TCPFin.Seconds()), UDP: uint32(t.UDP.Seconds()),
	}, ctx.Err()
}

// Status implements api.Backend.
func (d *Director) Status(ctx context.Context) (*api.Status, error) {
	s := &api.Status{Version: d.cfg.Version.UVS}
	if d.cfg.FillStatus != nil {
		d.cfg.FillStatus(s)
	}
	conns := d.cfg.Connections.Stats()
	s.Connections, s.Templates = uint64(conns.Conns), uint64(conns.Templates)
	d.mu.RLock()
	defer d.mu.RUnlock()
	s.Revision, s.Services = d.revision, len(d.order)
	for _, v := range d.order {
		s.Servers += len(v.servers)
	}
	return s, ctx.Err()
}

// Version implements api.Backend.
func (d *Director) Version(ctx context.Context) (api.Version, error) { return d.cfg.Version, ctx.Err() }
