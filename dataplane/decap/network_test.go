package decap

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"uvs/dataplane/tun"
	"uvs/lab"
	"uvs/packet"
)

func TestAnswerLeavesStraightToTheClient(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprintf("offloads off %v", off), func(t *testing.T) {
			n := newNetwork(t, lab.Config{OffloadsOff: off})
			r := n.start(t, Config{})
			n.serveUDP(t)
			atClient, err := n.client.Capture("eth0")
			must(t, err)
			atDirector, err := n.director.Capture("eth0")
			must(t, err)
			c, port := n.udpPort(t)
			n.tunnel(t, n.director, n.datagram(port, 53, []byte("hello")))
			n.answered(t, c, "hello")
			if s := r.count(t, Delivered, 1); s.Received != 1 || s.Bytes != 33 {
				t.Errorf("stats %+v", s)
			}
			for _, f := range atClient.Stop() {
				if etherType(f) == packet.EtherARP && !f.Out && bytes.Equal(f.Data[28:32], n.VIP().AsSlice()) {
					t.Errorf("the real server asked by ARP in the VIP's name: %x", f.Data)
				}
				if etherType(f) == packet.EtherIPv4 && !f.Out && !bytes.Equal(f.Data[6:12], n.rs.Legs[0].MAC) {
					t.Errorf("an answer that isn't from the real server itself: %x", f.Data)
				}
			}
			for _, f := range atDirector.Stop() {
				if etherType(f) == packet.EtherIPv4 && !f.Out {
					t.Errorf("came back to the director: %x", f.Data)
				}
			}
		})
	}
}

func TestConnectionRequestIsAnsweredByTheVIP(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	n.start(t, Config{})
	_, err := n.rs.Listen("tcp4", netip.AddrPortFrom(n.VIP(), 80).String())
	must(t, err)
	atClient, err := n.client.Capture("eth0")
	must(t, err)
	syn := make([]byte, packet.IPv4Len+packet.TCPLen)
	src, dst := number(n.client.Addr()), number(n.VIP())
	packet.PutIPv4(syn, len(syn), packet.Header4{TTL: 60, DF: true, Proto: packet.ProtoTCP, Src: src, Dst: dst})
	l4 := syn[packet.IPv4Len:]
	(*packet.Ports)(l4).SetSrc(4000)
	(*packet.Ports)(l4).SetDst(80)
	h := (*packet.TCP)(l4)
	h.SetSeq(1000)
	h.SetHeaderLen(packet.TCPLen)
	h.SetFlags(packet.TCPSyn)
	h.SetChecksum(^packet.Fold(packet.Sum(l4, packet.Pseudo4(src, dst, packet.ProtoTCP, len(l4)))))
	n.tunnel(t, n.director, syn)
	if _, err := atClient.Wait(shortly(t), func(f lab.CapturedFrame) bool {
		ip, l4, ok := packet.ParseIPv4(f.Data[packet.EthLen:])
		if !ok || ip.Src() != dst || ip.Dst() != src || ip.Proto() != packet.ProtoTCP {
			return false
		}
		a := (*packet.TCP)(l4)
		return a.Flags() == packet.TCPSyn|packet.TCPAck && a.Ack() == 1001 && a.DstPort() == 4000
	}); err != nil {
		t.Errorf("no SYN-ACK at the client: %v", err)
	}
}

func TestLongDatagramsAndFragmentsArriveWhole(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	n.serveUDP(t)
	c, port := n.udpPort(t)
	// The director's kernel cuts the tunnelled packet into fragments; the real server's puts it together.
	sizes := []int{1452, 1453, 9000, 60000, 65487 - 5} // the last fills the outer packet's 65535 bytes, but for the "rs1: " of the answer
	for i, size := range sizes {
		payload := strings.Repeat(string(rune('a'+i)), size)
		n.tunnel(t, n.director, n.datagram(port, 53, []byte(payload)))
		n.answered(t, c, payload)
		r.count(t, Delivered, uint64(i+1))
	}
	// Fragments inside the tunnel are packets of their own; the stack puts them together behind it.
	whole := n.datagram(port, 53, bytes.Repeat([]byte("z"), 2000))
	var parts [][]byte
	for at := packet.IPv4Len; at < len(whole); at += 800 {
		part := append(bytes.Clone(whole[:packet.IPv4Len]), whole[at:min(at+800, len(whole))]...)
		h := (*packet.IPv4)(part)
		h.SetTotalLen(len(part))
		h.SetFrag(false, at+800 < len(whole), at-packet.IPv4Len)
		packet.FixIPv4Checksum(part)
		parts = append(parts, part)
	}
	n.tunnel(t, n.director, parts...)
	n.answered(t, c, strings.Repeat("z", 2000))
	if s := r.count(t, Delivered, uint64(len(sizes)+len(parts))); s.Received != s.Verdicts[Delivered] || s.Unreadable+s.QueueFull != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestOnlyAllowedDirectorsTunnel(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	n.serveUDP(t)
	back, err := n.stranger.Capture("eth0")
	must(t, err)
	c, port := n.udpPort(t)
	for range 5 {
		n.tunnel(t, n.stranger, n.datagram(port, 53, []byte("from a stranger")))
	}
	r.count(t, DropDirector, 5)
	n.tunnel(t, n.director, n.datagram(port, 53, []byte("from the director")))
	n.answered(t, c, "from the director")
	if logs := r.logs.FilterMessageSnippet("no allowed director").All(); len(logs) != 1 || logs[0].ContextMap()["tunnel-from"] != "10.9.0.2" {
		t.Errorf("logged %v, want one line about 10.9.0.2", logs)
	}
	for _, f := range back.Stop() {
		if n.isRefusal(f) {
			t.Errorf("the stranger got an answer: %x", f.Data)
		}
	}
	must(t, r.end())

	r = n.start(t, Config{Directors: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/30")}})
	n.tunnel(t, n.stranger, n.datagram(port, 53, []byte("now allowed")))
	r.count(t, Delivered, 1)
}

func TestKernelDoesNotRefuseWhatItCannotHandle(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	packets := n.datagram(4000, 4000, []byte("x"))
	refused := func(probe func()) bool {
		t.Helper()
		back, err := n.director.Capture("eth0")
		must(t, err)
		n.tunnel(t, n.director, packets)
		probe()
		// The reset that answers this comes after what the kernel answered before.
		if _, err := n.director.DialContext(shortly(t), "tcp4", n.rs.Addr().String()+":9"); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("dial a closed port: %v", err)
		}
		for _, f := range back.Stop() {
			if n.isRefusal(f) {
				return true
			}
		}
		return false
	}
	if !refused(func() {}) {
		t.Error("without a decapsulator the kernel refuses nothing: this test sees nothing")
	}
	r := n.start(t, Config{})
	if refused(func() { r.count(t, Delivered, 1) }) {
		t.Error("the kernel told the director that it cannot handle the tunnel's protocol")
	}
	must(t, r.end())
	if !refused(func() {}) {
		t.Error("afterwards the kernel refuses nothing")
	}
}

// The remedy that is offered where the kernel has a handler of its own: it must not keep the packets from here as well.
func TestHostsInputRulesComeAfter(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	must(t, n.rs.Do(func() error { // what inputDrop says
		nft, err := nftables.New()
		if err != nil {
			return err
		}
		table := nft.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "uvsdecap"})
		chain := nft.AddChain(&nftables.Chain{Table: table, Name: "in", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1}, // the protocol
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{packet.ProtoIPIP}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return nft.Flush()
	}))
	n.tunnel(t, n.director, n.datagram(4000, 4000, []byte("x")))
	r.count(t, Delivered, 1)
}

func TestServerKeepsSilentAboutTheVIP(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	ask := func() bool {
		t.Helper()
		atClient, err := n.client.Capture("eth0")
		must(t, err)
		// The second is answered in any case, and after the first.
		for _, target := range []netip.Addr{n.VIP(), n.rs.Addr()} {
			arp := make([]byte, packet.EthLen+packet.ARPLen)
			mac := packet.MAC(n.client.Legs[0].MAC)
			packet.PutEth(arp, packet.Broadcast, mac, packet.EtherARP)
			packet.PutARP(arp[packet.EthLen:], packet.ARPRequest, mac, number(n.client.Addr()), packet.MAC{}, number(target))
			sendFrame(t, n.client, arp)
		}
		answers := 0
		_, err = atClient.Wait(shortly(t), func(f lab.CapturedFrame) bool {
			h, ok := packet.ParseARP(f.Data[packet.EthLen:])
			if etherType(f) != packet.EtherARP || !ok || f.Out || h.Op() != packet.ARPReply {
				return false
			}
			if h.Sender() == number(n.VIP()) {
				answers++
			}
			return h.Sender() == number(n.rs.Addr())
		})
		must(t, err)
		return answers > 0
	}
	settings := func() string {
		t.Helper()
		var all []string
		for _, name := range []string{"arp_ignore", "arp_announce", "rp_filter"} {
			value, err := n.rs.SysctlValue("net/ipv4/conf/all/" + name)
			must(t, err)
			all = append(all, value)
		}
		return strings.Join(all, " ")
	}
	r := n.start(t, Config{})
	if got := settings(); got != "1 2 1" {
		t.Errorf("arp_ignore, arp_announce, rp_filter of all: %s", got)
	}
	if ask() {
		t.Error("the real server answers ARP for the VIP")
	}
	must(t, r.end())
	if got := settings(); got != "0 0 1" {
		t.Errorf("afterwards: %s", got)
	}
	if _, err := n.rs.Index(DefaultDevice); err == nil {
		t.Error("the device is still there")
	}
	must(t, n.rs.AddAddr("lo", netip.PrefixFrom(n.VIP(), 32)))
	if !ask() {
		t.Error("with these settings the real server keeps silent anyway: this test sees nothing")
	}
}

func TestAddressesAndInterfacesAreFollowed(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{Interface: "eth0"})
	second := netip.MustParseAddr("10.9.0.12")
	x := n.datagram(4000, 4000, []byte("x"))
	send := func() { n.inject(t, n.director, packet.Vnet{}, wrap(x, n.director.Addr(), second)) }

	// The real server's own MAC, but not its address: it would be a router on the tunnel's way.
	send()
	r.count(t, PassNotLocal, 1)
	must(t, n.rs.AddAddr("eth0", netip.PrefixFrom(second, 24)))
	awaitLocal(t, r, second, true)
	send()
	r.count(t, Delivered, 1)
	must(t, n.rs.RemoveAddr("eth0", netip.PrefixFrom(second, 24)))
	awaitLocal(t, r, second, false)
	send()
	r.count(t, PassNotLocal, 2)
	must(t, r.end())

	must(t, n.rs.AddAddr("eth0", netip.PrefixFrom(second, 24)))
	r = n.start(t, Config{Interface: "other0"})
	if r.logs.FilterMessageSnippet("no such interface").Len() != 1 {
		t.Error("nothing said about an interface that isn't there")
	}
	send()
	r.count(t, PassInterface, 1)
	must(t, n.rs.AddMacvlan("other0", "eth0", nil))
	for end := time.Now().Add(10 * time.Second); r.host.ifindex.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the interface that appeared wasn't noticed")
		}
	}
	send()
	r.count(t, PassInterface, 2)
}

// awaitLocal waits until the Decapsulator knows or has forgotten an address.
func awaitLocal(t *testing.T, r *running, a netip.Addr, want bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); r.host.local.Load().has(packet.AddrFrom(a)) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v local: still not %v", a, want)
		}
	}
}

func TestTunnelInsideTheTunnelEndsAtTheDevice(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	nested := wrap(n.datagram(4000, 4000, []byte("x")), n.client.Addr(), n.VIP())
	n.tunnel(t, n.director, nested, n.datagram(4000, 4000, []byte("x")))
	if s := r.count(t, Delivered, 2); s.Received != 2 {
		t.Errorf("what came out of the device was taken again: %+v", s)
	}
}

func TestSecondDecapsulatorIsRefused(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	cfg := Config{Directors: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")}, VIPs: n.VIPs, Device: "second0"}
	must(t, n.rs.Do(func() error {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "runs here already") {
			t.Errorf("New() = %v", err)
		}
		return nil
	}))
	if value, err := n.rs.SysctlValue("net/ipv4/conf/all/arp_ignore"); err != nil || value != "1" {
		t.Errorf("the refused one changed the first one's settings: arp_ignore %s, %v", value, err)
	}
	must(t, r.end())
	must(t, n.rs.Do(func() error {
		d, err := New(cfg)
		if err != nil {
			return err
		}
		return d.Close()
	}))
}

func TestWhatFailsToOpenLeavesNothingBehind(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	must(t, n.rs.Do(func() error {
		_, err := New(Config{Directors: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32")}, VIPs: n.VIPs, Device: "eth0"})
		if !errors.Is(err, tun.ErrExists) {
			t.Errorf("New() = %v, want ErrExists", err)
		}
		return nil
	}))
	if value, err := n.rs.SysctlValue("net/ipv4/conf/all/arp_ignore"); err != nil || value != "0" {
		t.Errorf("arp_ignore %s, %v", value, err)
	}
}

func TestDeletedDeviceEndsIt(t *testing.T) {
	n := newNetwork(t, lab.Config{})
	r := n.start(t, Config{})
	must(t, n.rs.DeleteLink(DefaultDevice))
	n.tunnel(t, n.director, n.datagram(4000, 4000, []byte("x")))
	r.count(t, DropDevice, 1)
	if err := r.end(); !errors.Is(err, tun.ErrGone) || errors.Is(err, os.ErrClosed) {
		t.Errorf("Run() = %v, want ErrGone", err)
	}
}
