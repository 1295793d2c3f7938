package service

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"uvs/packet"
)

// randomService is one of few possible ones, so that addresses, ports and keys are shared and come again.
func randomService(r *rand.Rand, index uint32) *VirtualService {
	vs := &VirtualService{Index: index}
	vs.Proto = []Proto{TCP, UDP, SCTP}[r.IntN(3)]
	vs.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(r.IntN(2)), byte(r.IntN(40))}), []uint16{0, 21, 80, 443}[r.IntN(4)])
	switch r.IntN(20) {
	case 0:
		vs.Key = Key{Mark: uint32(1 + r.IntN(5)), Addr: netip.MustParseAddrPort("0.0.0.0:0")}
	case 1:
		vs.Addr = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(5))}), 80)
	}
	vs.Servers = randomServers(r, vs.Key)
	return vs
}

func randomServers(r *rand.Rand, k Key) (list []*RealServer) {
	for range r.IntN(3) {
		m := []Method{Masq, Route, Local}[r.IntN(3)]
		list = append(list, NewRealServer(k, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(r.IntN(9))}), 8080), m, 1))
	}
	return list
}

// TestATableThatFollowsIsWhatBuildingAnewMakes changes a configuration at random and compares each table with one built of
// the same services without its predecessor; and every table with what it was when it was new.
func TestATableThatFollowsIsWhatBuildingAnewMakes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	settings := DefaultSettings()
	var services []*VirtualService
	var tables []*Table
	var texts []string
	next := uint32(0)
	for len(services) < 300 {
		vs := randomService(r, next)
		if !slices.ContainsFunc(services, func(o *VirtualService) bool { return o.Key == vs.Key }) {
			services, next = append(services, vs), next+1
		}
	}
	marks := mustMarks(t, []MarkRule{{Mark: 1, Dst: netip.MustParsePrefix("10.9.0.200/32")}, {Mark: 2, Dst: netip.MustParsePrefix("10.9.1.7/32")}})
	table := NewTable(services, nil, 1, WithMarks(marks))
	followed := 0
	for generation := uint64(2); generation < 300; generation++ {
		services = slices.Clone(services)
		var changed []Replacement
		touched := map[Key]bool{}
		for range 1 + r.IntN(4) {
			i := r.IntN(len(services))
			old := services[i]
			vs := randomService(r, next)
			exists := slices.ContainsFunc(services, func(o *VirtualService) bool { return o.Key == vs.Key })
			switch n := r.IntN(3); {
			case n == 0 && !touched[old.Key]:
				services, changed = slices.Delete(services, i, i+1), append(changed, Replacement{Old: old})
				if r.IntN(4) == 0 { // and another takes its key at once
					again := *old
					again.Index, again.Servers, next = next, randomServers(r, old.Key), next+1
					services, changed = append(services, &again), append(changed, Replacement{New: &again})
				}
			case n == 1 && !exists && !touched[vs.Key]:
				services, changed, next = append(services, vs), append(changed, Replacement{New: vs}), next+1
				old = vs
			case n == 2 && !touched[old.Key]:
				edited := *old
				edited.Servers = randomServers(r, old.Key)
				services[i], changed = &edited, append(changed, Replacement{old, &edited})
			}
			touched[old.Key] = true
		}
		if r.IntN(50) == 0 {
			settings.NATICMPSend = !settings.NATICMPSend
		}
		before := table
		table = before.Next(services, changed, generation, WithMarks(marks), WithSettings(&settings))
		if table.Before != 0 {
			followed++
		}
		anew := NewTable(services, nil, generation, WithMarks(marks), WithSettings(&settings))
		if got, want := describe(table), describe(anew); got != want {
			t.Fatalf("generation %d, changes %v:\n%s\nwant\n%s", generation, changed, got, want)
		}
		if same := maps.Equal(vips(before), vips(table)); same != (table.Addresses == before.Addresses) && (!same || table.Before != 0) {
			t.Fatalf("generation %d: the addresses are the same: %v, Addresses %d and before %d", generation, same, table.Addresses, before.Addresses)
		}
		if generation%10 == 0 {
			tables, texts = append(tables, table), append(texts, describe(table))
		}
	}
	for i, old := range tables {
		if got := describe(old); got != texts[i] {
			t.Errorf("the table of generation %d was changed later", old.Generation)
		}
	}
	if followed < 150 {
		t.Errorf("only %d tables followed their predecessor", followed)
	}
}

func vips(t *Table) map[packet.Addr]bool {
	all := make(map[packet.Addr]bool)
	for a := range t.VIPs {
		all[a] = true
	}
	return all
}

// describe is all that can be found out about a table of randomServices.
func describe(t *Table) string {
	var found []string
	for i := range 2 * 41 {
		host := i/41*256 + i%41
		a := packet.AddrFrom4(0x0a090000 | uint32(host))
		for _, port := range []uint16{0, 20, 21, 80, 443, 2000} {
			for _, proto := range []Proto{TCP, UDP, SCTP} {
				if vs := t.Match(&packet.Flow{Dst: a, DstPort: port, Proto: uint8(proto)}, 0); vs != nil {
					found = append(found, fmt.Sprintf("%v:%d/%v=%p", a, port, proto, vs))
				}
			}
		}
	}
	for mark := range uint32(6) {
		if vs := t.Service(Key{Mark: mark, Addr: netip.MustParseAddrPort("0.0.0.0:0")}); vs != nil {
			found = append(found, fmt.Sprintf("mark%d=%p", mark, vs))
		}
	}
	for _, vs := range t.Services {
		if t.Service(vs.Key) != vs {
			found = append(found, fmt.Sprintf("%v is not found", vs.Key))
		}
	}
	owned := slices.SortedFunc(maps.Keys(vips(t)), packet.Addr.Compare)
	return fmt.Sprint(found, owned, t.LowestVIP(true), t.LowestVIP(false), t.Local(true), t.Local(false), t.nat, t.ftp, t.portZero)
}

// TestAChangeTouchesLittle counts what a change of one service among many allocates: not the table anew.
func TestAChangeTouchesLittle(t *testing.T) {
	var services []*VirtualService
	for i := range 20000 {
		services = append(services, &VirtualService{Index: uint32(i), Key: Key{
			Proto: TCP, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 80),
		}})
	}
	table := NewTable(services, nil, 1)
	edited := *services[77]
	if n := testing.AllocsPerRun(10, func() { table.Next(services, []Replacement{{services[77], &edited}}, 2) }); n > 100 {
		t.Errorf("%v allocations for a change of one service of %d", n, len(services))
	}
}
