package main

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uvs/dataplane/guard"
	"uvs/packet"
	"uvs/service"
)

// led is in the guard's place: it notes whose answers are led back.
type led struct {
	mu      sync.Mutex
	servers []string
	orders  int
}

func (l *led) set(servers []guard.Server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders++
	l.servers = nil
	for _, s := range servers {
		l.servers = append(l.servers, fmt.Sprintf("%d %v", s.Proto, s.Addr))
	}
	slices.Sort(l.servers)
}

func (l *led) check(t *testing.T, when string, orders int, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.servers, want) || l.orders != orders {
		t.Errorf("%s: answers of %q are led back, order %d, want %q, %d", when, l.servers, l.orders, want, orders)
	}
}

// localTable is a table with a UDP service that has these servers.
func localTable(servers ...*service.RealServer) *service.Table {
	var services []*service.VirtualService
	if len(servers) > 0 {
		services = append(services, &service.VirtualService{Key: servers[0].Service, Servers: servers})
	}
	return service.NewTable(services, new(service.ServerIndex), 1)
}

func TestRulesOfRemovedServersGoAfterTheirLastConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := service.Key{Proto: packet.ProtoUDP, Addr: netip.MustParseAddrPort("[2001:db8::100]:53")}
		one := service.NewRealServer(key, netip.MustParseAddrPort("[::1]:53"), service.Local, 1)
		two := service.NewRealServer(key, netip.MustParseAddrPort("[2001:db8::1]:53"), service.Local, 1)
		far := service.NewRealServer(key, netip.MustParseAddrPort("[2001:db8::2]:53"), service.Masq, 1)
		var l led
		locals := newLocalServers(l.set)
		go locals.run(t.Context())
		review := func() {
			synctest.Wait()
			time.Sleep(localReview)
			synctest.Wait()
		}
		const first, second = "17 [2001:db8::1]:53", "17 [::1]:53"
		for _, rs := range []*service.RealServer{one, two, far} {
			rs.SetAvailable(true)
		}
		locals.add(localTable(far, one).Services)
		l.check(t, "one server", 1, second)
		locals.add(localTable(far, one, two).Services)
		l.check(t, "two servers", 2, first, second)
		review()
		locals.add(localTable(far, one, two).Services)
		l.check(t, "nothing new", 2, first, second)
		two.Bind(true)
		two.SetAvailable(false)
		one.SetAvailable(false)
		locals.add(localTable(far).Services)
		l.check(t, "both removed", 2, first, second)
		review()
		l.check(t, "one has a connection left", 3, first)
		two.Unbind(true)
		review()
		l.check(t, "none has", 4)
		one.SetAvailable(true)
		locals.add(localTable(one).Services)
		l.check(t, "one is back", 5, second)
		locals.again()
		synctest.Wait()
		l.check(t, "the device was made anew", 6, second)
	})
}
