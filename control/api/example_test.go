package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"uvs/conntrack"
	"uvs/control"
	"uvs/control/api"
	"uvs/service"
)

// noPackets is a packet path that has counted nothing.
type noPackets struct{}

func (noPackets) AddCounters(services, servers []service.Counters) {}

// director starts an API server over a director without a packet path, and returns a client of it. With a real uvsd it is
// api.NewClient(api.DefaultSocket) alone.
func director() (c *api.Client, stop func()) {
	servers := new(service.ServerIndex)
	conns, err := conntrack.New(conntrack.Config{Servers: servers})
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "uvs-x-")
	if err != nil {
		panic(err)
	}
	socket := filepath.Join(dir, "uvsd.sock")
	l, err := api.Listen(socket, "no-such-group")
	if err != nil {
		panic(err)
	}
	d := control.New(control.Config{
		Servers: servers, Connections: conns, Counters: noPackets{}, Now: func() int64 { return 1 }, Version: api.Version{UVS: "example"},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, d) }()
	c = api.NewClient(socket)
	return c, func() {
		c.Close()
		cancel()
		<-done
		os.RemoveAll(dir)
	}
}

// What the examples are about: a virtual service and two real servers.
var (
	web = api.ServiceKey{Protocol: api.TCP, Address: netip.MustParseAddr("192.0.2.100"), Port: 80}
	rs1 = api.ServerKey{Address: netip.MustParseAddr("10.0.0.11"), Port: 80}
	rs2 = api.ServerKey{Address: netip.MustParseAddr("10.0.0.12"), Port: 80}
)

// configure adds them in one change.
func configure(ctx context.Context, c *api.Client) error {
	reply, err := c.Change(ctx, &api.ChangeRequest{Ops: []api.Op{
		{Kind: api.AddService, Service: &web, ServiceConfig: &api.ServiceConfig{Scheduler: "wlc"}},
		{Kind: api.AddServer, Service: &web, Server: &rs1, ServerConfig: &api.ServerConfig{Method: api.Route, Weight: 1}},
		{Kind: api.AddServer, Service: &web, Server: &rs2, ServerConfig: &api.ServerConfig{Method: api.Route, Weight: 2}},
	}})
	if err != nil {
		return err // nobody answered
	}
	return reply.Err() // what was refused; then nothing was changed
}

func ExampleClient_Change() {
	ctx := context.Background()
	c, stop := director()
	defer stop()
	fmt.Println(configure(ctx, c))

	// A second time, all of it is refused, with a code to branch on.
	err := configure(ctx, c)
	fmt.Println(errors.Is(err, api.ServiceExists), err)
	// Output:
	// <nil>
	// true add virtual service tcp 192.0.2.100:80: service already exists
}

func ExampleClient_Services() {
	ctx := context.Background()
	c, stop := director()
	defer stop()
	if err := configure(ctx, c); err != nil {
		fmt.Println(err)
		return
	}
	services, err := c.Services(ctx, nil) // or &web for that one
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range services {
		fmt.Println(s.ServiceKey, s.Config.Scheduler)
		for _, rs := range s.Servers { // the latest added first, as in IPVS
			fmt.Println("  ", rs.ServerKey, rs.Config.Method, rs.Config.Weight, rs.Active)
		}
	}
	// Output:
	// tcp 192.0.2.100:80 wlc
	//    10.0.0.12:80 route 2 0
	//    10.0.0.11:80 route 1 0
}

func ExampleClient_Connections() {
	ctx := context.Background()
	c, stop := director()
	defer stop()
	n := 0
	// One at a time, as they arrive: there may be millions.
	err := c.Connections(ctx, api.ConnectionFilter{}, func(conn *api.Connection) error {
		n++
		fmt.Println(conn.Client, conn.Server, conn.State)
		return nil
	})
	fmt.Println(n, err)
	// Output: 0 <nil>
}

func ExampleClient_Drain() {
	ctx := context.Background()
	c, stop := director()
	defer stop()
	if err := configure(ctx, c); err != nil {
		fmt.Println(err)
		return
	}
	fiveMinutes := uint32(300)
	list, err := c.Drain(ctx, &api.DrainRequest{Address: rs2.Address, WithinSeconds: &fiveMinutes})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range list {
		fmt.Println(d.Server, "of", d.Service, "is", d.State, "and had weight", d.Weight)
	}
	list, err = c.Undrain(ctx, &api.UndrainRequest{Address: rs2.Address})
	fmt.Println(len(list), err)
	// Output:
	// 10.0.0.12:80 of tcp 192.0.2.100:80 is empty and had weight 2
	// 1 <nil>
}

func ExampleClient_Set() {
	ctx := context.Background()
	c, stop := director()
	defer stop()
	list, err := c.Set(ctx, []api.Setting{{Name: "vs.expire_nodest_conn", Value: "1"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(list[0].Name, list[0].Value)
	// Output: net.ipv4.vs.expire_nodest_conn 1
}

func ExampleUnreachableError() {
	c := api.NewClient("/nowhere/uvsd.sock")
	_, err := c.Version(context.Background())
	if nobody := (*api.UnreachableError)(nil); errors.As(err, &nobody) {
		fmt.Println(err)
	}
	// Output: cannot reach uvsd at /nowhere/uvsd.sock: no such file or directory (is uvsd running? --socket names another)
}
