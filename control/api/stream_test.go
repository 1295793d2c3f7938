package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
)

func connection(i int) *Connection {
	return &Connection{
		Protocol: TCP,
		Client:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1024),
		Virtual:  netip.AddrPortFrom(web.Address, web.Port), Server: netip.AddrPortFrom(rs11.Address, rs11.Port),
		State: "ESTABLISHED", ExpiresSeconds: 900,
	}
}

func TestAMillionConnectionsPassWithoutGathering(t *testing.T) {
	n := 1_000_000
	if testing.Short() || raceEnabled {
		n = 100_000
	}
	c := serve(t, &stub{conns: func(yield func(*Connection) error) error {
		for i := range n {
			if err := yield(connection(i)); err != nil {
				return err
			}
		}
		return nil
	}})
	var most uint64
	got := 0
	err := c.Connections(t.Context(), ConnectionFilter{}, func(conn *Connection) error {
		if *conn != *connection(got) {
			return fmt.Errorf("connection %d is %+v", got, *conn)
		}
		if got++; got%(n/10) == 0 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
		return nil
	})
	if err != nil || got != n {
		t.Fatalf("%d connections, %v; want %d", got, err, n)
	}
	if most > 32<<20 {
		t.Errorf("%d MiB in use on the way, want far less than the list's", most>>20)
	}
}

func TestABrokenListSaysSo(t *testing.T) {
	var n int
	b := &stub{conns: func(yield func(*Connection) error) error {
		for i := range n {
			if err := yield(connection(i)); err != nil {
				return err
			}
		}
		return fmt.Errorf("list connections: %w", NoMemory)
	}}
	c := serve(t, b)
	for _, n = range []int{0, 1, 10000} { // nothing, less than a piece, several pieces sent before it breaks
		err := c.Connections(t.Context(), ConnectionFilter{}, func(*Connection) error { return nil })
		if !errors.Is(err, NoMemory) {
			t.Errorf("after %d connections: %v, want %v", n, err, NoMemory)
		}
	}
}

func TestAListIsFilteredByServiceAndStopsWhenAsked(t *testing.T) {
	stopped := make(chan error, 1)
	b := &stub{}
	b.conns = func(yield func(*Connection) error) error {
		for i := 0; ; i++ {
			if err := yield(connection(i)); err != nil {
				stopped <- err
				return err
			}
		}
	}
	c := serve(t, b)
	enough := errors.New("enough")
	err := c.Connections(t.Context(), ConnectionFilter{Service: &mark}, func(*Connection) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("Connections = %v, want the error of yield", err)
	}
	if err := <-stopped; err == nil {
		t.Error("the backend went on after the client had left")
	}
	if b.key == nil || *b.key != mark {
		t.Errorf("filtered by %v, want %v", b.key, mark)
	}
}

func TestAServerThatDiesInTheMiddleIsNotAnEnd(t *testing.T) {
	c := serve(t, &stub{conns: func(yield func(*Connection) error) error {
		for i := range 10000 {
			if err := yield(connection(i)); err != nil {
				return err
			}
		}
		panic(http.ErrAbortHandler)
	}})
	err := c.Connections(t.Context(), ConnectionFilter{}, func(*Connection) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "breaks off") {
		t.Errorf("Connections = %v, want that the list breaks off", err)
	}
}
