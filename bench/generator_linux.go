package bench

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"uvs/dataplane/link"
	"uvs/lab"
	"uvs/packet"
)

const (
	frameLen     = 60 // the shortest Ethernet frame, without its checksum
	portsPerHost = 1 << 14
	firstPort    = 1024
	firstClient  = 198<<24 | 18<<16 // 198.18.0.0/15 is for benchmarks (RFC 2544)
	maxFlows     = portsPerHost << 17
)

// stream is what a generator sends: UDP datagrams in frames of frameLen bytes, of many clients in turn.
type stream struct {
	dst, src packet.MAC
	to       netip.AddrPort
	flows    int
	batch    [64][]byte // frames, virtio-net header first, each rewritten for every flow
	sum      uint64     // of what the UDP checksum covers and never changes
	next     int
}

func newStream(dst, src packet.MAC, to netip.AddrPort, flows int) *stream {
	s := &stream{dst: dst, src: src, to: to, flows: min(flows, maxFlows)}
	const ipLen = frameLen - packet.EthLen
	for i := range s.batch {
		b := make([]byte, packet.VnetLen+frameLen)
		eth := b[packet.VnetLen:]
		packet.PutEth(eth, dst, src, packet.EtherIPv4)
		packet.PutIPv4(eth[packet.EthLen:], ipLen, packet.Header4{
			TTL: 64, DF: true, Proto: packet.ProtoUDP, Src: firstClient, Dst: packet.AddrFrom(to.Addr()).V4(),
		})
		packet.PutUDP(eth[packet.EthLen+packet.IPv4Len:], 0, to.Port(), ipLen-packet.IPv4Len)
		s.batch[i] = b
	}
	udp := s.batch[0][packet.VnetLen+packet.EthLen+packet.IPv4Len:]
	s.sum = packet.Sum(udp, packet.Pseudo4(0, packet.AddrFrom(to.Addr()).V4(), packet.ProtoUDP, ipLen-packet.IPv4Len))
	return s
}

// fill makes b the next flow's frame.
func (s *stream) fill(b []byte) {
	client, port := uint32(firstClient+s.next/portsPerHost), uint16(firstPort+s.next%portsPerHost)
	if s.next++; s.next == s.flows {
		s.next = 0
	}
	ip := b[packet.VnetLen+packet.EthLen:]
	(*packet.IPv4)(ip).SetSrc(client) // mends the header's checksum
	udp := (*packet.UDP)(ip[packet.IPv4Len:])
	(*packet.Ports)(ip[packet.IPv4Len:]).SetSrc(port)
	c := ^packet.Fold(s.sum + uint64(client) + uint64(port))
	if c == 0 {
		c = 0xffff
	}
	udp.SetChecksum(c)
}

// generator sends a stream from an interface as fast as it goes, or at a rate, in a thread of its own.
type generator struct {
	sent atomic.Uint64
	tid  int
	stop atomic.Bool
	done chan error
}

// generate starts one. cpu is the CPU that its thread is bound to, -1 for any; rate is in frames a second, 0 for no limit.
func generate(ns *lab.Namespace, ifname string, s *stream, cpu int, rate float64) (*generator, error) {
	var out *link.Socket
	err := ns.Do(func() (err error) {
		out, err = link.OpenTx(link.Config{Interface: ifname})
		return err
	})
	if err != nil {
		return nil, err
	}
	g := &generator{done: make(chan error, 1)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, its CPU mask with it
		g.tid = unix.Gettid()
		var err error
		if cpu >= 0 {
			var set unix.CPUSet
			set.Set(cpu)
			err = unix.SchedSetaffinity(0, &set)
		}
		started <- err
		g.run(out, s, rate)
		g.done <- out.Close()
	}()
	if err := <-started; err != nil {
		g.end()
		return nil, fmt.Errorf("bind the generator to CPU %d: %w", cpu, err)
	}
	return g, nil
}

func (g *generator) run(out *link.Socket, s *stream, rate float64) {
	begin, n := time.Now(), 0
	for !g.stop.Load() {
		if rate > 0 {
			if ahead := time.Duration(float64(n)/rate*1e9) - time.Since(begin); ahead > 0 {
				time.Sleep(ahead)
			}
		}
		for _, b := range s.batch {
			s.fill(b)
			out.Send(b, nil)
		}
		out.Flush()
		n += len(s.batch)
		g.sent.Store(uint64(n))
	}
}

// cpu is the CPU time that it has used so far.
func (g *generator) cpu() (time.Duration, error) { return cpuOfThread(g.tid) }

// end stops it and waits until it has.
func (g *generator) end() error {
	g.stop.Store(true)
	return <-g.done
}
