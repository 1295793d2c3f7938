package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"uvs/packet"
)

// forwarder carries every frame between links, as a worker does: poll, receive a batch, send, flush, release.
type forwarder struct {
	ports []*port
	p     *Poller
	stop  context.CancelFunc
	done  chan struct{}
}

// port is one link of a forwarder and where its frames go.
type port struct {
	in, out *Socket
	rewrite func(*Frame) bool // false drops the frame
	// what passed through
	longest, partial, tagged int
}

func forward(tb testing.TB, ports ...*port) *forwarder {
	tb.Helper()
	links := make([]Link, len(ports))
	for i, p := range ports {
		links[i] = p.in
	}
	p, err := NewPoller(links...)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &forwarder{ports: ports, p: p, stop: stop, done: make(chan struct{})}
	go f.run(ctx)
	tb.Cleanup(f.close)
	return f
}

func (f *forwarder) close() {
	f.stop()
	f.p.Wake()
	<-f.done
	f.p.Close()
}

func (f *forwarder) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(f.done)
	frames := make([]Frame, 64)
	for ctx.Err() == nil {
		f.p.Wait(-1)
		for i, p := range f.ports {
			if !f.p.Readable(i) {
				continue
			}
			n := p.in.Recv(frames)
			for j := range frames[:n] {
				p.pass(&frames[j])
			}
		}
		for _, p := range f.ports {
			p.out.Flush()
		}
		for _, p := range f.ports {
			p.in.Release()
		}
	}
}

func (p *port) pass(f *Frame) {
	p.longest = max(p.longest, len(f.Eth()))
	if f.Vnet().NeedsCsum() {
		p.partial++
	}
	if f.Tagged {
		p.tagged++
	}
	if !f.Truncated && (p.rewrite == nil || p.rewrite(f)) {
		p.out.Send(f.Buf, nil)
	}
}

// transfer sends n random bytes over TCP from a client to a server that hashes them and answers with the hash.
func transfer(tb testing.TB, client, server *space, address string, n int) {
	tb.Helper()
	var listener net.Listener
	var err error
	server.do(func() { listener, err = net.Listen("tcp4", address) })
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			tb.Errorf("accept: %v", err)
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		h := sha256.New()
		if _, err := io.Copy(h, conn); err != nil {
			tb.Errorf("receive: %v", err)
		}
		conn.Write(h.Sum(nil))
	})
	var conn net.Conn
	client.do(func() {
		conn, err = net.DialTimeout("tcp4", listener.Addr().String(), 5*time.Second)
	})
	if err != nil {
		listener.Close()
		tb.Fatalf("connect through the forwarder: %v", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	if _, err := conn.Write(data); err != nil {
		tb.Fatalf("send: %v", err)
	}
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if want := sha256.Sum256(data); err != nil || !bytes.Equal(answer, want[:]) {
		tb.Errorf("the server received other bytes: hash %x, %v", answer, err)
	}
}

// client c0 --- l0 [director] r0 --- s0 server    one subnet; the director carries every frame across
type wire struct {
	client, director, server *space
}

func newWire(tb testing.TB) *wire {
	w := &wire{newSpace(tb), newSpace(tb), newSpace(tb)}
	veth(w.client, "c0", w.director, "l0")
	veth(w.director, "r0", w.server, "s0")
	w.client.address("c0", "10.9.1.1/24")
	w.server.address("s0", "10.9.1.2/24")
	return w
}

func TestTCPSuperFramesPassThroughWhole(t *testing.T) {
	for _, k := range kinds {
		if k.cfg.NoVnet {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			w := newWire(t)
			left, right := w.director.open(k.cfg.on("l0")), w.director.open(k.cfg.on("r0"))
			out, back := &port{in: left, out: right}, &port{in: right, out: left}
			f := forward(t, out, back)
			transfer(t, w.client, w.server, "10.9.1.2:7001", 16<<20)
			f.close()
			st := left.Stats()
			if out.longest < 20000 || out.partial < 100 {
				t.Errorf("longest frame %d bytes, %d partial checksums: no offload was tested", out.longest, out.partial)
			}
			if st.RxTruncated != 0 || right.Stats().TxError != 0 || right.Stats().TxTooLong != 0 {
				t.Errorf("received %+v, sent %+v", st, right.Stats())
			}
			t.Logf("%d frames, longest %d bytes; %d lost to a full ring", st.RxFrames, out.longest, st.RxRingFull)
		})
	}
}

// client c0 --- l0 [first] m0 ===tagged=== m1 [second] r0 --- s0 server
func TestTCPSuperFramesPassOverVLAN(t *testing.T) {
	push := func(f *Frame) bool { return f.PushVLAN(0x8100, 0x2007) }
	for _, k := range kinds {
		if k.cfg.NoVnet {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			client, first, second, server := newSpace(t), newSpace(t), newSpace(t), newSpace(t)
			veth(client, "c0", first, "l0")
			veth(first, "m0", second, "m1")
			veth(second, "r0", server, "s0")
			client.address("c0", "10.9.1.1/24")
			server.address("s0", "10.9.1.2/24")
			l0, m0 := first.open(k.cfg.on("l0")), first.open(k.cfg.on("m0"))
			m1, r0 := second.open(k.cfg.on("m1")), second.open(k.cfg.on("r0"))
			tagging, trunk := &port{in: l0, out: m0, rewrite: push}, &port{in: m1, out: r0}
			forward(t, tagging, &port{in: m0, out: l0})
			f := forward(t, trunk, &port{in: r0, out: m1, rewrite: push})
			transfer(t, client, server, "10.9.1.2:7002", 4<<20)
			f.close()
			if st := m0.Stats(); st.TxError != 0 || st.TxNoBuffer != 0 || st.TxTooLong != 0 {
				t.Errorf("tagged frames refused: %+v", st)
			}
			if trunk.longest < 20000 || trunk.tagged < 50 {
				t.Errorf("on the trunk: longest %d bytes, %d tagged", trunk.longest, trunk.tagged)
			}
		})
	}
}

func TestLinkComesBackAfterInterfaceWasDown(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			near, far := s.open(k.cfg.on("near")), s.open(k.cfg.on("far"))
			p, err := NewPoller(far)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			s.down("far")
			p.Wait(time.Second)
			if err := p.Err(0); !errors.Is(err, ErrDown) {
				t.Fatalf("Err(0) = %v after the interface went down, want ErrDown", err)
			}
			mustSleep(t, p)
			if n := far.Recv(make([]Frame, 4)); n != 0 {
				t.Errorf("Recv on an interface that is down: %d frames", n)
			}
			if err := far.Err(); !errors.Is(err, ErrDown) {
				t.Errorf("Err() = %v, want ErrDown for as long as it lasts", err)
			}
			sendAll(far, testFrame(1, 60), testFrame(2, 60))
			if st := far.Stats(); st.TxError != 2 {
				t.Errorf("counted %+v, want 2 frames refused", st)
			}
			s.up("far")
			for end := time.Now().Add(5 * time.Second); far.Err() != nil; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("Err() = %v after the interface came up", far.Err())
				}
			}
			s.down("near") // the cable's other end
			for end := time.Now().Add(5 * time.Second); !errors.Is(far.Err(), ErrNoCarrier); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("Err() = %v without a carrier", far.Err())
				}
			}
			s.up("near")
			s.settle("near")
			s.settle("far")
			sendAll(near, testFrame(3, 60))
			if n := len(receive(t, far, 1)); n != 1 {
				t.Errorf("received %d frames after the interface came up, want 1", n)
			}
			sendAll(far, testFrame(4, 60))
			if n := len(receive(t, near, 1)); n != 1 {
				t.Errorf("sent frames do not arrive after the interface came up")
			}
		})
	}
}

func TestLinkTellsThatItsInterfaceIsGone(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := twoEnds(t)
			far := s.open(k.cfg.on("far"))
			p, err := NewPoller(far)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := s.nl.LinkDel(s.link("far")); err != nil {
				t.Fatal(err)
			}
			p.Wait(time.Second)
			if err := p.Err(0); !errors.Is(err, ErrGone) {
				t.Errorf("Err(0) = %v, want ErrGone", err)
			}
			mustSleep(t, p)
			if n := far.Recv(make([]Frame, 4)); n != 0 {
				t.Errorf("Recv = %d", n)
			}
			sendAll(far, testFrame(1, 60))
			if st := far.Stats(); st.TxError != 1 {
				t.Errorf("counted %+v, want the frame refused", st)
			}
			veth(s, "near", s, "far") // another interface of that name is not ours
			if err := far.Err(); !errors.Is(err, ErrGone) {
				t.Errorf("Err() = %v, want ErrGone for ever", err)
			}
		})
	}
}

// mustSleep fails if the poller has something to say all the time.
func mustSleep(t *testing.T, p *Poller) {
	t.Helper()
	begin := time.Now()
	for range 5 {
		p.Wait(20 * time.Millisecond)
	}
	if d := time.Since(begin); d < 50*time.Millisecond { // a signal of the runtime's may end one early
		t.Errorf("five waits of 20ms took %v: poll returns at once", d)
	}
}

func TestFanoutGivesEachFrameToOneMember(t *testing.T) {
	for _, kind := range []Kind{KindRing, KindSimple} {
		t.Run(kind.String(), func(t *testing.T) {
			s := twoEnds(t)
			cfg := Config{Interface: "far", Kind: kind, Fanout: Fanout{Group: 300, Mode: FanoutHash}}
			members := []*Socket{s.open(cfg)}
			near := s.open(Config{Interface: "near"})
			// The second joins while frames come in: nobody may see one twice.
			var n int
			joined, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for last := -1; n != last; n++ {
					f := superFrame(n, 100)
					(*packet.Vnet)(f).SetGSOType(packet.GSONone)
					copy(f[packet.VnetLen+34:], []byte{byte(n >> 8), byte(n)}) // the source port picks the member
					sendAll(near, f)
					time.Sleep(100 * time.Microsecond)
					select {
					case <-joined:
						joined, last = nil, n+500
					default:
					}
				}
			}()
			members = append(members, s.open(cfg))
			close(joined)
			<-done
			seen := make(map[string]int)
			shares := make([]int, len(members))
			for m, l := range members {
				for _, f := range receiveIPv4Quietly(t, l) {
					seen[fmt.Sprintf("%x", f.eth[34:42])]++
					shares[m]++
				}
			}
			for k, times := range seen {
				if times != 1 {
					t.Errorf("frame %s was received %d times", k, times)
				}
			}
			// What is meant for a member that is not yet complete is lost: a moment's worth.
			if len(seen) < n*3/4 || shares[1] < 100 {
				t.Errorf("received %d of %d frames, shares %v", len(seen), n, shares)
			}
		})
	}
}

func TestFanoutProgramPicksTheMember(t *testing.T) {
	s := twoEnds(t)
	cfg := Config{Interface: "far", Fanout: Fanout{Group: 301, Mode: FanoutProgram, Program: parityProgram}}
	members := []*Socket{s.open(cfg), s.open(cfg)}
	near := s.open(Config{Interface: "near"})
	for i := range 40 {
		f := superFrame(i, 100)
		(*packet.Vnet)(f).SetGSOType(packet.GSONone)
		f[packet.VnetLen+35] = byte(i)
		sendAll(near, f)
	}
	for m, l := range members {
		frames := receiveIPv4Quietly(t, l)
		for _, f := range frames {
			if int(f.eth[35])%2 != m {
				t.Errorf("member %d received source port %d", m, f.eth[35])
			}
		}
		if len(frames) != 20 {
			t.Errorf("member %d received %d frames, want 20", m, len(frames))
		}
	}
	cfg.Fanout.Program = nil
	s.do(func() {
		if _, err := Open(cfg); err == nil {
			t.Error("Open succeeds for FanoutProgram without a program")
		}
	})
	cfg.Fanout = Fanout{Group: 301, Mode: FanoutLB}
	s.do(func() {
		if _, err := Open(cfg); err == nil {
			t.Error("Open succeeds in a group of another mode")
		}
	})
}

// receiveIPv4Quietly takes what has arrived, without waiting for more.
func receiveIPv4Quietly(tb testing.TB, l Link) (all []got) {
	for range 3 {
		all = append(all, receiveNow(l)...)
		time.Sleep(10 * time.Millisecond)
	}
	return all
}

// receiveNow takes all IPv4 frames that are there.
func receiveNow(l Link) (all []got) {
	frames := make([]Frame, 32)
	for {
		n := l.Recv(frames)
		for i := range frames[:n] {
			if eth := frames[i].Eth(); len(eth) > 13 && eth[12] == 8 && eth[13] == 0 {
				all = append(all, copyOut(&frames[i]))
			}
		}
		l.Release()
		if n == 0 {
			return all
		}
	}
}

func TestInterfaceThatLeftAndReturnedIsStillGone(t *testing.T) {
	s, elsewhere := twoEnds(t), newSpace(t)
	far := s.open(Config{Interface: "far"})
	index := s.link("far").Attrs().Index
	if err := s.nl.LinkSetNsFd(s.link("far"), int(elsewhere.h)); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.nl.LinkSetNsFd(elsewhere.link("far"), int(s.h)); err != nil {
		t.Fatal(err)
	}
	s.up("far")
	if now := s.link("far").Attrs().Index; now != index {
		t.Fatalf("the interface came back as number %d, was %d", now, index)
	}
	if err := far.Err(); !errors.Is(err, ErrGone) { // the kernel does not bind the socket again
		t.Errorf("Err() = %v, want ErrGone", err)
	}
}
