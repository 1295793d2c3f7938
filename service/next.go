package service

import (
	"maps"
	"slices"

	"uvs/packet"
)

// Replacement is what became of a service between two tables: New is in Old's place, under the same key. Without Old it
// is new, without New it is gone.
type Replacement struct{ Old, New *VirtualService }

// Next builds the Table that follows t. services and options are as for NewTable, and of the services those in changed are
// all that differ. What it costs goes by changed, but for the options.
func (t *Table) Next(services []*VirtualService, changed []Replacement, generation uint64, options ...Option) *Table {
	n := &Table{
		Services: services, Servers: t.Servers, Generation: generation, Settings: DefaultSettings(),
		Addresses: t.Addresses, Before: t.Generation, ServiceSlots: t.ServiceSlots,
		byMark: t.byMark, lowest: t.lowest, local: t.local, locals: t.locals, ftp: t.ftp, portZero: t.portZero,
	}
	for _, o := range options {
		o(n)
	}
	if len(changed) > len(services)/4+1 || n.marks != t.marks || t.byAddr.outgrown() || t.vips.outgrown() ||
		slices.ContainsFunc(changed, Replacement.marked) {
		return NewTable(services, t.Servers, generation, options...)
	}
	b := builder{Table: n, services: t.byAddr.change(), owned: t.vips.change(), moved: make(map[packet.Addr]int)}
	for _, r := range changed { // first: another service may have the key of one that is gone
		if r.New == nil {
			b.remove(r.Old)
		}
	}
	for _, r := range changed {
		switch {
		case r.New == nil:
			continue
		case r.Old == nil:
			b.add(r.New)
		default:
			b.replace(r.Old, r.New)
		}
		n.Changed = append(n.Changed, r.New)
	}
	b.finish()
	return n
}

// marked says that a fwmark service comes or goes or changes. Which addresses the mark rules make ours goes by them.
func (r Replacement) marked() bool {
	return r.Old != nil && r.Old.Mark != 0 || r.New != nil && r.New.Mark != 0
}

// builder is a table being built.
type builder struct {
	*Table
	services *draft[addrKey, *VirtualService]
	owned    *draft[packet.Addr, int]
	moved    map[packet.Addr]int // how many more or fewer own an address; nil for a table without predecessor
	fewer    bool                // services by address are gone
	relocal  bool                // the services with local servers, or these, are others
}

func (b *builder) add(vs *VirtualService) {
	addr, port := packet.AddrFrom(vs.Addr.Addr()), vs.Addr.Port()
	b.put(vs)
	if vs.Mark != 0 {
		return
	}
	b.own(addr, 1)
	if lowest := &b.lowest[family(addr)]; lowest.IsZero() || addr.Compare(*lowest) < 0 {
		*lowest = addr
	}
	b.count(vs.Proto, port, 1)
}

func (b *builder) replace(old, vs *VirtualService) {
	b.setLocal(old, nil)
	b.put(vs)
}

// put makes vs the service under its key.
func (b *builder) put(vs *VirtualService) {
	b.ServiceSlots = max(b.ServiceSlots, int(vs.Index)+1)
	b.setLocal(vs, localAddrs(vs))
	if addr := packet.AddrFrom(vs.Addr.Addr()); vs.Mark != 0 {
		b.byMark[markKey{vs.Mark, !addr.Is4()}] = vs
	} else {
		k := addrKey{addr, vs.Addr.Port(), vs.Proto}
		b.services.set(k, k.hash(), vs)
	}
}

func (b *builder) remove(vs *VirtualService) {
	b.setLocal(vs, nil)
	k := addrKey{packet.AddrFrom(vs.Addr.Addr()), vs.Addr.Port(), vs.Proto}
	b.services.remove(k, k.hash())
	b.own(k.addr, -1)
	b.count(vs.Proto, k.port, -1)
	b.fewer = b.fewer || b.lowest[family(k.addr)] == k.addr
}

// count counts a service by address that comes or goes.
func (b *builder) count(proto Proto, port uint16, n int) {
	if proto == TCP && port == 21 {
		b.ftp += n
	}
	if port == 0 {
		b.portZero += n
	}
}

// own counts who has an address.
func (b *builder) own(a packet.Addr, n int) {
	if b.moved != nil {
		b.moved[a] += n
	}
	h := hashAddr(a)
	if n += b.owned.get(a, h); n > 0 {
		b.owned.set(a, h, n)
	} else {
		b.owned.remove(a, h)
	}
}

// ownMarked makes the hosts that rules send to a fwmark service addresses of ours. Such a service has no VIP of its own,
// but somebody must answer ARP for what its clients connect to. Of a larger network only its router can tell which
// addresses are the director's: it must have a route here.
func (b *builder) ownMarked() {
	for i := range b.marks.rules {
		r := &b.marks.rules[i]
		if addr, ok := r.host(); ok && b.byMark[markKey{r.Mark, !addr.Is4()}] != nil {
			b.own(addr, 1)
		}
	}
}

// localAddrs are the addresses of a service's real servers that are the director itself.
func localAddrs(vs *VirtualService) (addrs []packet.Addr) {
	for _, rs := range vs.Servers {
		if rs.Method() == Local && !slices.Contains(addrs, rs.IP) {
			addrs = append(addrs, rs.IP)
		}
	}
	return addrs
}

// setLocal notes the addresses of a service's real servers that are the director itself. Few services have any.
func (b *builder) setLocal(vs *VirtualService, addrs []packet.Addr) {
	if len(addrs) == 0 && b.locals[vs] == nil {
		return
	}
	if !b.relocal {
		b.locals, b.relocal = maps.Clone(b.locals), true
	}
	if b.locals[vs] = addrs; len(addrs) == 0 {
		delete(b.locals, vs)
	}
}

// finish makes what depends on several services.
func (b *builder) finish() {
	t := b.Table
	if t.Servers != nil {
		t.ServerSlots = t.Servers.Cap()
	}
	if b.relocal {
		t.local = [2][]packet.Addr{}
		for _, addrs := range t.locals {
			for _, a := range addrs {
				t.local[family(a)] = append(t.local[family(a)], a)
			}
		}
		for i := range t.local {
			slices.SortFunc(t.local[i], packet.Addr.Compare)
			t.local[i] = slices.Compact(t.local[i])
		}
	}
	t.byAddr, t.vips = b.services.directory, b.owned.directory
	for a, n := range b.moved {
		if now := t.vips.get(a, hashAddr(a)); n != 0 && (now == 0 || now == n) {
			t.Addresses = t.Generation // an owned address is no longer, or one that wasn't is
		}
	}
	if b.fewer {
		t.findLowest()
	}
	if t.Settings.NATICMPSend {
		t.findNATServers()
	}
}

// findLowest finds the lowest addresses anew.
func (t *Table) findLowest() {
	t.lowest = [2]packet.Addr{}
	for k := range t.byAddr.all {
		if lowest := &t.lowest[family(k.addr)]; lowest.IsZero() || k.addr.Compare(*lowest) < 0 {
			*lowest = k.addr
		}
	}
}
