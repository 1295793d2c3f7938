package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// maxUDPPayload is the longest payload of a UDP datagram over IPv4.
const maxUDPPayload = 65535 - 20 - 8

// UDPServer answers each datagram with its name, a colon, a space and the datagram, cut to what a datagram holds. The
// answer comes from the address that was asked.
type UDPServer struct {
	name      string
	conns     []net.PacketConn
	forget    func() // takes it off the lab's list
	serving   sync.WaitGroup
	datagrams atomic.Int64
	once      sync.Once
	closeErr  error
}

// ServeUDPEcho starts a server in a namespace that listens on the given addresses, which may not be wildcards. It
// ends with Close or with the lab.
func ServeUDPEcho(ns *Namespace, name string, addrs ...netip.AddrPort) (*UDPServer, error) {
	s := &UDPServer{name: name, forget: func() {}}
	for _, a := range addrs {
		if a.Addr().IsUnspecified() {
			return nil, fmt.Errorf("UDP server %s: from %v answers would come from any address", name, a)
		}
	}
	var err error
	s.conns, err = listenAll(addrs, func(addr string) (net.PacketConn, error) { return ns.ListenPacket("udp", addr) })
	if err != nil {
		return nil, fmt.Errorf("UDP server %s: %w", name, err)
	}
	for _, pc := range s.conns {
		s.serving.Go(func() { s.serve(pc.(*net.UDPConn)) })
	}
	if ns != nil {
		if s.forget, err = ns.lab.own(s.Close); err != nil {
			s.forget = func() {}
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// serve answers datagrams until the socket is closed.
func (s *UDPServer) serve(pc *net.UDPConn) {
	buf := make([]byte, len(s.name)+2+maxUDPPayload)
	prefix := copy(buf, s.name+": ")
	for {
		n, from, err := pc.ReadFromUDPAddrPort(buf[prefix:])
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error about an earlier answer
		}
		s.datagrams.Add(1)
		pc.WriteToUDPAddrPort(buf[:min(prefix+n, maxUDPPayload)], from) // lost like any datagram if it fails
	}
}

// Name is the server's name.
func (s *UDPServer) Name() string { return s.name }

// Datagrams is the number of datagrams received so far.
func (s *UDPServer) Datagrams() int64 { return s.datagrams.Load() }

// Close stops the server. Closing twice is harmless.
func (s *UDPServer) Close() error {
	s.once.Do(func() {
		for _, pc := range s.conns {
			s.closeErr = errors.Join(s.closeErr, pc.Close())
		}
		s.serving.Wait()
		s.forget()
	})
	return s.closeErr
}

// ServeUDPEcho starts a UDP echo server on every real server, called like its host: on the host's own addresses and,
// but for NAT, on the VIPs.
func (t *Topology) ServeUDPEcho(port uint16) ([]*UDPServer, error) {
	var servers []*UDPServer
	for _, h := range t.RealServers {
		s, err := ServeUDPEcho(h.Namespace, h.Name(), t.serviceAddrs(h, port)...)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}
