package service

import "uvs/packet"

// Table is the whole configuration that the packet path reads: immutable, published by one atomic pointer. A change
// makes another one, which shares with it what stays (Next).
type Table struct {
	// Services in the order they were added.
	Services []*VirtualService
	// Servers resolves the server numbers in connection entries, removed servers included.
	Servers *ServerIndex
	// Generation counts publications.
	Generation uint64
	// Addresses is the generation of the first table with the addresses that IsVIP is true of: as long as it stays, so do
	// they.
	Addresses uint64
	// Changed are the services of this table that the one of generation Before hadn't, or not so. Before is 0 if there is
	// no such table: then it is all.
	Changed []*VirtualService
	Before  uint64
	// ServiceSlots and ServerSlots are the lengths that arrays of counters by Index need.
	ServiceSlots, ServerSlots int
	// Settings are those in force with this table.
	Settings Settings
	// Limiter says which would-be new connections the defence drop_packet drops; nil drops none.
	Limiter *Limiter

	marks    *Marks
	byAddr   directory[addrKey, *VirtualService]
	byMark   map[markKey]*VirtualService
	vips     directory[packet.Addr, int] // services and mark rules that have the address
	lowest   [2]packet.Addr              // of IPv4, of IPv6
	local    [2][]packet.Addr            // of real servers that are the director itself, by family
	locals   map[*VirtualService][]packet.Addr
	nat      map[addrKey]bool // NAT real servers, where nat_icmp_send needs them
	ftp      int              // TCP services on port 21
	portZero int              // services on port 0
}

type addrKey struct {
	addr  packet.Addr
	port  uint16
	proto Proto
}

func (k addrKey) hash() uint64 {
	hi, lo := k.addr.Words()
	return mix(hi^uint64(k.port)<<8^uint64(k.proto), lo)
}

func hashAddr(a packet.Addr) uint64 { return mix(a.Words()) }

type markKey struct {
	mark uint32
	v6   bool
}

// Option is something more that a Table is built of.
type Option func(*Table)

// WithMarks makes a Table give marks by these rules; nil are none.
func WithMarks(m *Marks) Option { return func(t *Table) { t.marks = m } }

// WithSettings makes a Table have these settings instead of the default ones.
func WithSettings(s *Settings) Option { return func(t *Table) { t.Settings = *s } }

// WithLimiter makes a Table have the limiter of new connections.
func WithLimiter(l *Limiter) Option { return func(t *Table) { t.Limiter = l } }

// NewTable builds a Table of services, whose keys must differ. The slice is kept.
func NewTable(services []*VirtualService, servers *ServerIndex, generation uint64, options ...Option) *Table {
	t := &Table{
		Services: services, Servers: servers, Generation: generation, Settings: DefaultSettings(),
		Addresses: generation, Changed: services,
		byMark: make(map[markKey]*VirtualService),
		locals: make(map[*VirtualService][]packet.Addr),
	}
	for _, o := range options {
		o(t)
	}
	b := builder{
		Table: t, services: newDirectory[addrKey, *VirtualService](len(services)), owned: newDirectory[packet.Addr, int](len(services)),
	}
	for _, vs := range services {
		b.add(vs)
	}
	if t.marks != nil {
		b.ownMarked()
	}
	b.finish()
	return t
}

// findNATServers makes the set that IsNATServer looks in.
func (t *Table) findNATServers() {
	t.nat = make(map[addrKey]bool)
	for _, vs := range t.Services {
		for _, rs := range vs.Servers {
			if rs.Method() == Masq {
				t.nat[addrKey{rs.IP, rs.Addr.Port(), vs.Proto}] = true
			}
		}
	}
}

// Local are the addresses of IPv4 or IPv6 of real servers that are the director's own, each once and in order.
func (t *Table) Local(is4 bool) []packet.Addr {
	if is4 {
		return t.local[0]
	}
	return t.local[1]
}

// IsNATServer says that a packet comes from the address, port and protocol of a NAT real server (ip_vs_has_real_service).
// It knows only where Settings.NATICMPSend asks for it.
func (t *Table) IsNATServer(f *packet.Flow) bool {
	return t.nat[addrKey{f.Src, f.SrcPort, Proto(f.Proto)}]
}

// Mark returns the firewall mark of a packet from a client that came in by the port with that index: what the first rule
// gives that it meets, or 0. It does not allocate; without rules it costs nothing.
func (t *Table) Mark(f *packet.Flow, port int) uint32 {
	if t.marks == nil {
		return 0
	}
	return t.marks.Of(f, port)
}

// Marks are the rules that marks are given by, or nil.
func (t *Table) Marks() *Marks { return t.marks }

// Empty says that no service exists at all; IPVS then looks at nothing.
func (t *Table) Empty() bool { return len(t.Services) == 0 }

// Service returns the service with that very key, or nil.
func (t *Table) Service(k Key) *VirtualService {
	addr := packet.AddrFrom(k.Addr.Addr())
	if k.Mark != 0 {
		return t.byMark[markKey{k.Mark, !addr.Is4()}]
	}
	return t.at(addr, k.Addr.Port(), k.Proto)
}

// Match returns the service that a packet to flow's destination with a firewall mark (0: none) belongs to, or nil. The
// order is the kernel's (ip_vs_service_find): the mark; protocol, address and port; for TCP the data ports of an FTP
// service on that address; port 0 of that address.
func (t *Table) Match(f *packet.Flow, mark uint32) *VirtualService {
	if mark != 0 {
		if vs := t.byMark[markKey{mark, !f.Dst.Is4()}]; vs != nil {
			return vs
		}
	}
	proto := Proto(f.Proto)
	if vs := t.at(f.Dst, f.DstPort, proto); vs != nil {
		return vs
	}
	if t.ftp > 0 && proto == TCP && (f.DstPort == 20 || f.DstPort >= 1024) {
		if vs := t.at(f.Dst, 21, TCP); vs != nil {
			return vs
		}
	}
	if t.portZero > 0 {
		return t.at(f.Dst, 0, proto)
	}
	return nil
}

// at returns the service with that very address, port and protocol, or nil.
func (t *Table) at(a packet.Addr, port uint16, proto Proto) *VirtualService {
	k := addrKey{a, port, proto}
	return t.byAddr.get(k, k.hash())
}

// IsVIP says that some service by address has this address, or that a rule gives what goes to this one address the mark
// of a fwmark service.
func (t *Table) IsVIP(a packet.Addr) bool { return t.vips.get(a, hashAddr(a)) > 0 }

// VIPs calls yield for every address that IsVIP is true of, in no order.
func (t *Table) VIPs(yield func(packet.Addr) bool) {
	for a := range t.vips.all {
		if !yield(a) {
			return
		}
	}
}

// LowestVIP is the lowest address of IPv4 or IPv6 that a service by address has, or the zero Addr.
func (t *Table) LowestVIP(is4 bool) packet.Addr {
	if is4 {
		return t.lowest[0]
	}
	return t.lowest[1]
}
