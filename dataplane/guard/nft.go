package guard

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
)

// nft keeps one nftables table of the family netdev.
type nft struct {
	table *nftables.Table
	conn  *nftables.Conn
	why   error // nftables cannot be used
	// fib says that the kernel tells a packet's kind of destination at ingress (CONFIG_NFT_FIB_NETDEV). Where it
	// doesn't, the host's addresses are listed in a set.
	fib   bool
	local func() ([]netlink.Addr, error) // the host's addresses
}

// tablePrefix begins the names of the tables of all instances.
const tablePrefix = "uvs-"

// ruleset is what the table is to hold: nothing at all if it has no chains.
type ruleset struct {
	chains  []chain
	servers []Server     // of NAT, for chains that are shared
	virtual []netip.Addr // from where nothing is for the host
}

// chain is what is dropped at one interface's ingress, besides the servers' answers.
type chain struct {
	name   string
	iface  string
	shared bool           // the host's stack sees uvs's frames there
	inner  []netip.Prefix // segments whose packets uvs forwards all by itself
}

// speaksOf says that there is anything to drop of a family.
func (r ruleset) speaksOf(f *family) bool {
	return r.hasVirtual(f) || slices.ContainsFunc(r.servers, func(s Server) bool { return familyOf(s.Addr.Addr().Unmap()) == f }) ||
		slices.ContainsFunc(r.chains, func(c chain) bool {
			return slices.ContainsFunc(c.inner, func(p netip.Prefix) bool { return familyOf(p.Addr()) == f })
		})
}

func (r ruleset) hasVirtual(f *family) bool {
	return slices.ContainsFunc(r.virtual, func(a netip.Addr) bool { return familyOf(a) == f })
}

// rulesOf are the rules of one of r's chains.
func (n *nft) rulesOf(r ruleset, c chain) (list []rule) {
	for _, f := range families {
		if r.hasVirtual(f) {
			list = append(list, n.fromVirtual(f))
		}
		if c.shared && r.speaksOf(f) {
			list = append(list, n.rules(c, f)...)
		}
	}
	return list
}

const sendBuffer = 8 << 20 // for the batch that lists thousands of servers

func openNFT(instance string, local func() ([]netlink.Addr, error)) *nft {
	n := &nft{table: &nftables.Table{Name: tablePrefix + instance, Family: nftables.TableFamilyNetdev}, local: local}
	n.conn, n.why = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
		_ = c.SetWriteBuffer(sendBuffer) // without the privilege for it, long lists are refused
		return nil
	}))
	if n.why == nil {
		_, n.why = n.conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	}
	if n.why == nil {
		n.fib = probeFib(n.table.Name)
	}
	return n
}

// probeFib finds out by a transaction that comes to nothing whether the kernel has fib at ingress.
func probeFib(name string) bool {
	conn, err := nftables.New(nftables.AsLasting()) // one of its own: a refused batch leaves answers behind
	if err != nil {
		return false
	}
	defer func() { _ = conn.CloseLasting() }()
	t := conn.AddTable(&nftables.Table{Name: name + ".probe", Family: nftables.TableFamilyNetdev})
	c := conn.AddChain(&nftables.Chain{Table: t, Name: "probe"})
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: toUnicastByFib()})
	conn.DelTable(t)
	return conn.Flush() == nil
}

func (n *nft) close() {
	if n.conn != nil {
		_ = n.conn.CloseLasting()
	}
}

// removeTables removes the tables of the family netdev that which says yes to.
func (n *nft) removeTables(which func(*nftables.Table) bool) error {
	if n.why != nil {
		return nil
	}
	tables, err := n.conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return fmt.Errorf("list nftables: %w", err)
	}
	for _, t := range tables {
		if which(t) {
			n.conn.DelTable(t)
			if err := n.conn.Flush(); err != nil {
				return fmt.Errorf("remove nftables table %s: %w", t.Name, err)
			}
		}
	}
	return nil
}

// update brings the table in line with r in one transaction, or leaves it alone if it is so already.
func (n *nft) update(r ruleset) error {
	if n == nil || n.why != nil {
		if n == nil || len(r.chains) == 0 {
			return nil
		}
		return fmt.Errorf("nftables cannot be used (%w): with ip_forward=1 the host would forward real servers' answers a second time", n.why)
	}
	sets, err := n.sets(r)
	if err != nil {
		return err
	}
	have, err := n.read()
	if err != nil {
		return fmt.Errorf("read nftables table %s: %w", n.table.Name, err)
	}
	switch {
	case len(r.chains) == 0 && !have.there:
		return nil
	case len(r.chains) == 0:
		n.conn.DelTable(n.table)
	case have.sameRules(n, r, sets):
		if !n.changeElements(have, sets) {
			return nil
		}
	default:
		n.build(r, sets)
	}
	if err := n.conn.Flush(); err != nil {
		return fmt.Errorf("change nftables table %s: %w", n.table.Name, err)
	}
	return nil
}

// contents are a set's elements, by their keys.
type contents map[string]bool

// sets computes what the sets must hold.
func (n *nft) sets(r ruleset) (map[string]contents, error) {
	sets := make(map[string]contents)
	for _, f := range families {
		if !r.speaksOf(f) {
			continue
		}
		for _, name := range []string{f.sets.answers, f.sets.anyPort, f.sets.fragments, f.sets.servers} {
			sets[name] = contents{}
		}
		if r.hasVirtual(f) {
			sets[f.sets.virtual] = contents{}
		}
		if !n.fib {
			local, err := n.localAddrs(f)
			if err != nil {
				return nil, err
			}
			sets[f.sets.local] = local
		}
	}
	for _, a := range r.virtual {
		sets[familyOf(a).sets.virtual][string(a.AsSlice())] = true
	}
	for _, s := range r.servers {
		a := s.Addr.Addr().Unmap()
		names := familyOf(a).sets
		// Concatenated fields are padded to four bytes each.
		addr := a.AsSlice()
		proto := []byte{s.Proto, 0, 0, 0}
		port := append(binary.BigEndian.AppendUint16(nil, s.Addr.Port()), 0, 0)
		host := string(addr) + string(proto)
		sets[names.servers][string(addr)] = true
		sets[names.fragments][host] = true
		if s.Addr.Port() == 0 {
			sets[names.anyPort][host] = true
		} else {
			sets[names.answers][host+string(port)] = true
		}
	}
	return sets, nil
}

// localAddrs are the addresses by which packets are the host's own, broadcast included.
func (n *nft) localAddrs(f *family) (contents, error) {
	addrs, err := n.local()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	local := contents{}
	if f == family4 {
		local["\xff\xff\xff\xff"] = true
	}
	for _, a := range addrs {
		ip, broadcast := a.IP.To4(), make([]byte, 4)
		if (ip != nil) != (f == family4) {
			continue
		}
		if ip == nil {
			local[string(a.IP)] = true
			continue
		}
		for i := range broadcast {
			broadcast[i] = ip[i] | ^a.Mask[i] // the kernel takes it for one whether or not it is set
		}
		local[string(ip)], local[string(broadcast)] = true, true
	}
	return local, nil
}

// installed is the table as it is.
type installed struct {
	there  bool
	chains map[string][]string // by name: the rules' comments
	sets   map[string]contents
}

func (n *nft) read() (installed, error) {
	have := installed{chains: make(map[string][]string), sets: make(map[string]contents)}
	tables, err := n.conn.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return have, err
	}
	if have.there = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == n.table.Name }); !have.there {
		return have, nil
	}
	chains, err := n.conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return have, err
	}
	for _, c := range chains {
		if c.Table.Name != n.table.Name {
			continue
		}
		rules, err := n.conn.GetRules(n.table, c)
		if err != nil {
			return have, err
		}
		comments := []string{}
		for _, r := range rules {
			s, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			comments = append(comments, s)
		}
		have.chains[c.Name] = comments
	}
	sets, err := n.conn.GetSets(n.table)
	if err != nil {
		return have, err
	}
	for _, s := range sets {
		elements, err := n.conn.GetSetElements(s)
		if err != nil {
			return have, err
		}
		have.sets[s.Name] = contents{}
		for _, e := range elements {
			have.sets[s.Name][string(e.Key)] = true
		}
	}
	return have, nil
}

// sameRules says that the table has the chains, rules and sets for r, whatever the sets hold.
func (have *installed) sameRules(n *nft, r ruleset, sets map[string]contents) bool {
	if !have.there || len(have.chains) != len(r.chains) || len(have.sets) != len(sets) {
		return false
	}
	for name := range sets {
		if have.sets[name] == nil {
			return false
		}
	}
	return !slices.ContainsFunc(r.chains, func(c chain) bool {
		comments := have.chains[c.name]
		return !slices.EqualFunc(n.rulesOf(r, c), comments, func(r rule, comment string) bool { return r.comment == comment })
	})
}

// chunk is how many elements go into one message: its attribute's length is of 16 bits.
const chunk = 500

// changeElements queues what makes the sets right and says whether that is anything.
func (n *nft) changeElements(have installed, sets map[string]contents) bool {
	changed := false
	for name, want := range sets {
		var add, del []nftables.SetElement
		for k := range want {
			if !have.sets[name][k] {
				add = append(add, nftables.SetElement{Key: []byte(k)})
			}
		}
		for k := range have.sets[name] {
			if !want[k] {
				del = append(del, nftables.SetElement{Key: []byte(k)})
			}
		}
		changed = changed || len(add)+len(del) > 0
		set := n.set(name)
		for c := range slices.Chunk(add, chunk) {
			_ = n.conn.SetAddElements(set, c) // fails for anonymous sets only
		}
		for c := range slices.Chunk(del, chunk) {
			_ = n.conn.SetDeleteElements(set, c)
		}
	}
	return changed
}

// build queues the table anew, in the place of whatever is there by its name.
func (n *nft) build(r ruleset, sets map[string]contents) {
	n.conn.AddTable(n.table)
	n.conn.DelTable(n.table)
	n.conn.AddTable(n.table)
	for name := range sets {
		_ = n.conn.AddSet(n.set(name), nil)
	}
	n.changeElements(installed{}, sets)
	for _, c := range r.chains {
		nc := n.conn.AddChain(&nftables.Chain{
			Table: n.table, Name: c.name, Device: c.iface, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityRef(-500),
		})
		for _, l := range n.rulesOf(r, c) {
			n.conn.AddRule(&nftables.Rule{
				Table: n.table, Chain: nc, Exprs: l.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, l.comment),
			})
		}
	}
}

// set is the set of that name. Its number is within a transaction.
func (n *nft) set(name string) *nftables.Set {
	for i, f := range families {
		names := []string{f.sets.answers, f.sets.anyPort, f.sets.fragments, f.sets.servers, f.sets.local, f.sets.virtual}
		k := slices.Index(names, name)
		if k < 0 {
			continue
		}
		s := &nftables.Set{Table: n.table, Name: name, ID: uint32(1 + i*len(names) + k), KeyType: f.address}
		fields := []nftables.SetDatatype{f.address, nftables.TypeInetProto, nftables.TypeInetService}
		switch name {
		case f.sets.anyPort, f.sets.fragments:
			s.KeyType, s.Concatenation = nftables.MustConcatSetType(fields[:2]...), true
		case f.sets.answers:
			s.KeyType, s.Concatenation = nftables.MustConcatSetType(fields...), true
		}
		return s
	}
	panic("guard: no set " + name)
}
