package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"uvs/dataplane/guard"
	"uvs/packet"
	"uvs/service"
)

// stand is in a publisher's guard's and packet path's place. It notes addresses that the packet path serves unguarded.
type stand struct {
	mu      sync.Mutex
	table   *service.Table
	guarded map[netip.Addr]bool
	naked   []netip.Addr
	orders  int
}

func (s *stand) Update(d guard.Desired) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders++
	s.guarded = make(map[netip.Addr]bool)
	for _, a := range d.VIPs {
		s.guarded[a] = true
	}
	s.checkLocked()
	return nil
}

func (s *stand) Publish(t *service.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = t
	s.checkLocked()
}

func (s *stand) Table() *service.Table {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table
}

func (s *stand) checkLocked() {
	for a := range s.table.VIPs {
		if !s.guarded[a.Netip()] {
			s.naked = append(s.naked, a.Netip())
		}
	}
}

func vips(t *service.Table) (d guard.Desired) {
	for a := range t.VIPs {
		d.VIPs = append(d.VIPs, a.Netip())
	}
	return d
}

// tableOf is a table with one service on each of the addresses 10.9.0.N.
func tableOf(generation uint64, numbers ...byte) *service.Table {
	var services []*service.VirtualService
	for i, n := range numbers {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, n}), 80)
		services = append(services, &service.VirtualService{Key: service.Key{Proto: packet.ProtoTCP, Addr: addr}, Index: uint32(i)})
	}
	return service.NewTable(services, new(service.ServerIndex), generation)
}

func newPublisher(s *stand) *publisher {
	s.table = tableOf(0)
	return &publisher{
		guard: s, plane: s, unwanted: vips, more: unwantedOf, followed: func(*service.Table) {}, log: zap.NewNop(), changed: make(chan struct{}, 1),
	}
}

func TestGuardStandsBeforeTheFirstPacketAndGoesAfterTheLast(t *testing.T) {
	s := new(stand)
	p := newPublisher(s)
	for i, numbers := range [][]byte{{1}, {1, 2}, {2}, {3}, {}, {1, 2, 3}} {
		p.publish(tableOf(uint64(i+1), numbers...))
		if i%2 == 1 {
			continue // changes may come faster than they are followed
		}
		p.follow()
		var want []netip.Addr
		for _, n := range numbers {
			want = append(want, netip.AddrFrom4([4]byte{10, 9, 0, n}))
		}
		if got := fmt.Sprint(sorted(s.guarded)); got != fmt.Sprint(want) {
			t.Errorf("after table %d the guard keeps the host off %v, want %v", i+1, got, want)
		}
	}
	if len(s.naked) > 0 {
		t.Errorf("the packet path served %v while the host's stack was let at them", s.naked)
	}
}

// TestGuardFollowsWhatAChangeTouches publishes tables that each follow the one before, of which only the changes are looked at,
// and some of which are never seen by the publisher.
func TestGuardFollowsWhatAChangeTouches(t *testing.T) {
	s := new(stand)
	p := newPublisher(s)
	table := tableOf(1, 1, 2, 3, 4, 5, 6, 7, 8)
	p.publish(table)
	whole := 0
	p.unwanted = func(t *service.Table) guard.Desired { whole++; return vips(t) }
	for i := range byte(60) {
		added := tableOf(0, 20+i).Services[0]
		services := append(slices.Clone(table.Services[1:]), added)
		changed := []service.Replacement{{Old: table.Services[0]}, {New: added}}
		table = table.Next(services, changed, table.Generation+1)
		if i%20 != 7 {
			p.publish(table)
		}
		if i%20 == 9 {
			p.follow()
		}
	}
	if len(s.naked) > 0 {
		t.Errorf("the packet path served %v while the host's stack was let at them", s.naked)
	}
	if whole != 6 { // three unseen tables, three looks of follow
		t.Errorf("all services were looked at %d times, want 6", whole)
	}
	p.follow()
	if len(s.guarded) != 8 {
		t.Errorf("the guard keeps the host off %d addresses, want 8", len(s.guarded))
	}
}

func sorted(set map[netip.Addr]bool) []netip.Addr {
	var list []netip.Addr
	for a := range set {
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// A change of weights, which needs no other guard, must not wait for one.
func TestPublishingTheSameAddressesNeedsNoOrder(t *testing.T) {
	s := new(stand)
	p := newPublisher(s)
	p.publish(tableOf(1, 1, 2))
	p.publish(tableOf(2, 1, 2))
	p.publish(tableOf(3, 1))
	if s.orders != 1 {
		t.Errorf("the guard got %d orders, want 1", s.orders)
	}
}

func TestGuardFollowsWhileTablesAreReplaced(t *testing.T) {
	s := new(stand)
	p := newPublisher(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.run(ctx) }()
	for i := range uint64(500) {
		p.publish(tableOf(i+1, byte(i%3), byte(10+i%7)))
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.guarded)
		s.mu.Unlock()
		if n == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the guard keeps the host off %d addresses, want 2", n)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(s.naked) > 0 {
		t.Errorf("the packet path served %v while the host's stack was let at them", s.naked[:1])
	}
}
