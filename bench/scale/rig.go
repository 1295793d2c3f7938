package scale

import (
	"context"
	"fmt"
	"net/netip"

	"uvs/conntrack"
	"uvs/control"
	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// A rig is a director with one leg to clients, 198.18.0.0/15, and one to real servers, 10.0.0.0/8. Its virtual addresses
// are in 172.16.0.0/12.
var (
	clientMAC = packet.MAC{2, 0, 0, 0, 1, 1}
	serverMAC = packet.MAC{2, 0, 0, 0, 2, 1}
	ownMAC    = [2]packet.MAC{{2, 0, 0, 0, 1, 0xfe}, {2, 0, 0, 0, 2, 0xfe}}
)

const (
	clientNet = 0xc6120000
	vipNet    = 0xac100000
	serverNet = 0x0a000000
)

type rig struct {
	plane    *dataplane.Plane
	director *control.Director
	conns    *conntrack.Table
}

// newRig makes a director whose workers receive from the links that open gives for each worker and leg.
func newRig(workers int, open func(worker, leg int) link.Link) (*rig, error) {
	servers, hops := new(service.ServerIndex), new(nexthop.Static)
	hops.SetPrefix(netip.MustParsePrefix("198.18.0.0/15"), &nexthop.Hop{Iface: 0, Dst: clientMAC, MTU: 1500}, nexthop.Ready)
	hops.SetPrefix(netip.MustParsePrefix("10.0.0.0/8"), &nexthop.Hop{Iface: 1, Dst: serverMAC, MTU: 1500}, nexthop.Ready)
	conns, err := conntrack.New(conntrack.Config{Servers: servers, Alloc: dataplane.TableMemory})
	if err != nil {
		return nil, err
	}
	plane, err := dataplane.New(dataplane.Config{
		Ports: []dataplane.Port{
			{Name: "clients", MAC: ownMAC[0]},
			{Name: "servers", MAC: ownMAC[1], Gateways: []netip.Prefix{netip.MustParsePrefix("10.255.255.254/8")}},
		},
		Workers: workers, Conns: conns, NextHops: hops, AnnounceInterval: -1,
		OpenRx: func(worker, leg int) (link.Link, error) { return open(worker, leg), nil },
		OpenTx: func(int) (link.Link, error) { return &sink{fd: -1}, nil },
	})
	if err != nil {
		return nil, err
	}
	director := control.New(control.Config{
		Servers: servers, Connections: conns, Counters: plane, Publish: plane.Publish, Now: dataplane.BootTime,
	})
	return &rig{plane, director, conns}, nil
}

func vip(i int) netip.Addr { return packet.AddrFrom4(vipNet + uint32(i)).Netip() }
func rip(i int) netip.Addr { return packet.AddrFrom4(serverNet + 1 + uint32(i)).Netip() }

func serviceKey(i int) *api.ServiceKey {
	return &api.ServiceKey{Protocol: api.TCP, Address: vip(i), Port: 80}
}

func serverOp(kind api.OpKind, service, server, weight int, method string) api.Op {
	return api.Op{
		Kind: kind, Service: serviceKey(service), Server: &api.ServerKey{Address: rip(server), Port: 80},
		ServerConfig: &api.ServerConfig{Method: method, Weight: weight},
	}
}

// configure gives the director so many services, each with one server of its own.
func (r *rig) configure(services int, method string) error {
	ops := []api.Op{{Kind: api.Flush}}
	for i := range services {
		ops = append(ops,
			api.Op{Kind: api.AddService, Service: serviceKey(i), ServiceConfig: &api.ServiceConfig{Scheduler: "wlc"}},
			serverOp(api.AddServer, i, i, 1, method))
	}
	return r.change(ops...)
}

func (r *rig) change(ops ...api.Op) error {
	reply, err := r.director.Change(context.Background(), &api.ChangeRequest{Ops: ops, OnError: api.Continue})
	if err == nil && reply.Err() != nil {
		err = fmt.Errorf("configure: %w", reply.Err())
	}
	return err
}

// fill makes connections beside the packet path, of clients numbered from 0, to service 0's server.
func (r *rig) fill(n int) error {
	rs := r.director.Table().Services[0].Servers[0]
	for i := range n {
		if err := insert(r.conns, rs, i, dataplane.BootTime()); err != nil {
			return err
		}
	}
	return nil
}

// flow is the first packet's of the i-th client's connection to service 0.
func flow(i int) packet.Flow {
	return packet.Flow{
		Src: packet.AddrFrom4(clientNet + uint32(i>>15)), SrcPort: uint16(1024 + i&0x7fff),
		Dst: packet.AddrFrom4(vipNet), DstPort: 80, Proto: packet.ProtoTCP,
	}
}

func insert(t *conntrack.Table, rs *service.RealServer, i int, now int64) error {
	n := conntrack.NewConn{
		Flow: flow(i), Server: rs.IP, ServerPort: rs.Addr.Port(), Method: rs.Method(), RS: rs, Event: packet.TCPSyn, Now: now,
	}
	var c conntrack.Conn
	if o := t.Insert(&n, &c); o != conntrack.Inserted {
		return fmt.Errorf("connection %d was not made: outcome %d", i, o)
	}
	return nil
}

func netipAddrPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 80) }
