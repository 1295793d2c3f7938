package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"uvs/packet"
	"uvs/sched/trial"
)

// recorded is a packet that a test makes a capture of.
type recorded struct {
	at    time.Duration
	bytes []byte
}

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// traffic is that of n TCP connections of one second and as many UDP questions, ten connections a second, of hosts of a family, as
// Ethernet frames in two VLANs or none.
func traffic(t testing.TB, n int, six bool, vlans ...uint16) (list []recorded) {
	t.Helper()
	type endpoint struct {
		ip   net.IP
		port uint16
	}
	build := func(from, to endpoint, l4 gopacket.SerializableLayer, payload int) []byte {
		eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4}
		proto := layers.IPProtocolTCP
		if _, ok := l4.(*layers.UDP); ok {
			proto = layers.IPProtocolUDP
		}
		var ip gopacket.SerializableLayer
		if six {
			eth.EthernetType = layers.EthernetTypeIPv6
			v := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: proto, SrcIP: from.ip, DstIP: to.ip}
			ip = v
			switch x := l4.(type) {
			case *layers.TCP:
				_ = x.SetNetworkLayerForChecksum(v)
			case *layers.UDP:
				_ = x.SetNetworkLayerForChecksum(v)
			}
		} else {
			v := &layers.IPv4{Version: 4, TTL: 60, Protocol: proto, SrcIP: from.ip, DstIP: to.ip}
			ip = v
			switch x := l4.(type) {
			case *layers.TCP:
				_ = x.SetNetworkLayerForChecksum(v)
			case *layers.UDP:
				_ = x.SetNetworkLayerForChecksum(v)
			}
		}
		stack := []gopacket.SerializableLayer{eth}
		inner := eth.EthernetType
		for i, id := range vlans {
			tag := &layers.Dot1Q{VLANIdentifier: id, Type: inner}
			if i < len(vlans)-1 {
				tag.Type = layers.EthernetTypeDot1Q
			}
			eth.EthernetType = layers.EthernetTypeDot1Q
			stack = append(stack, tag)
		}
		stack = append(stack, ip, l4, gopacket.Payload(bytes.Repeat([]byte{'x'}, payload)))
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(b.Bytes())
	}
	host := func(net4 byte, i int) net.IP {
		if six {
			return net.IP{0x20, 1, 0xd, 0xb8, 0, net4, 0, 0, 0, 0, 0, 0, 0, 0, byte(i >> 8), byte(i)}
		}
		return net.IP{192, net4, byte(i >> 8), byte(i)}
	}
	vip := host(0, 100)
	for i := range n {
		at := time.Duration(i) * 100 * time.Millisecond
		c, s := endpoint{host(1, i%20), uint16(1024 + i)}, endpoint{vip, 80}
		seg := func(from, to endpoint, flags string) *layers.TCP {
			has := func(f string) bool { return strings.Contains(flags, f) }
			return &layers.TCP{SrcPort: layers.TCPPort(from.port), DstPort: layers.TCPPort(to.port), SYN: has("S"), ACK: has("A"), FIN: has("F"), RST: has("R"), Window: 100}
		}
		add := func(after time.Duration, b []byte) { list = append(list, recorded{at + after, b}) }
		add(0, build(c, s, seg(c, s, "S"), 0))
		add(time.Millisecond, build(s, c, seg(s, c, "SA"), 0))
		add(2*time.Millisecond, build(c, s, seg(c, s, "A"), 300))
		add(3*time.Millisecond, build(s, c, seg(s, c, "A"), 1400))
		q, d := endpoint{host(2, i%5), uint16(5000 + i)}, endpoint{vip, 53}
		add(4*time.Millisecond, build(q, d, &layers.UDP{SrcPort: layers.UDPPort(q.port), DstPort: 53}, 40))
		add(5*time.Millisecond, build(d, q, &layers.UDP{SrcPort: 53, DstPort: layers.UDPPort(q.port)}, 90))
		if i >= 10 { // the connection of a second ago ends
			o := endpoint{host(1, (i-10)%20), uint16(1024 + i - 10)}
			add(6*time.Millisecond, build(o, s, seg(o, s, "FA"), 0))
			add(7*time.Millisecond, build(s, o, seg(s, o, "FA"), 0))
		}
	}
	return list
}

// pcapOf is a capture written by gopacket, with packets cut to snap bytes.
func pcapOf(t testing.TB, list []recorded, snap int, link layers.LinkType, cut func([]byte) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(uint32(snap), link); err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		full := cut(p.bytes)
		ci := gopacket.CaptureInfo{Timestamp: start.Add(p.at), CaptureLength: min(len(full), snap), Length: len(full)}
		if err := w.WritePacket(ci, full[:ci.CaptureLength]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func pcapngOf(t testing.TB, list []recorded) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		ci := gopacket.CaptureInfo{Timestamp: start.Add(p.at), CaptureLength: len(p.bytes), Length: len(p.bytes)}
		if err := w.WritePacket(ci, p.bytes); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func whole(b []byte) []byte { return b }

// bare is the IP packet of a frame, behind a head.
func bare(head ...byte) func([]byte) []byte {
	return func(b []byte) []byte { return append(bytes.Clone(head), b[14:]...) }
}

func config(schedulers ...string) Config {
	c := Config{Schedulers: schedulers}
	for i := range 4 {
		c.Servers = append(c.Servers, trial.Server{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80), Weight: 1})
	}
	return c
}

func run(t testing.TB, b []byte, c Config) *Outcome {
	t.Helper()
	o, err := Run(context.Background(), bytes.NewReader(b), c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestEveryKindOfCaptureSaysTheSame(t *testing.T) {
	const n = 40
	plain, six, tagged := traffic(t, n, false), traffic(t, n, true), traffic(t, n, false, 7, 8)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(pcapOf(t, plain, 65535, layers.LinkTypeEthernet, whole)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	sll := append([]byte{0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0}, 8, 0)
	sll2 := []byte{8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0}
	want := run(t, pcapOf(t, plain, 65535, layers.LinkTypeEthernet, whole), config("rr", "wlc"))
	if want.Stats.Opened != 2*n || want.Stats.Packets != uint64(len(plain)) || want.Stats.Kind != "pcap" || len(want.Stats.Notes()) != 0 {
		t.Fatalf("%+v", want.Stats)
	}
	for _, tt := range []struct {
		name string
		file []byte
	}{
		{"cut to 60 bytes", pcapOf(t, plain, 60, layers.LinkTypeEthernet, whole)},
		{"gzipped", zipped.Bytes()},
		{"two VLAN tags", pcapOf(t, tagged, 65535, layers.LinkTypeEthernet, whole)},
		{"IPv6", pcapOf(t, six, 65535, layers.LinkTypeEthernet, whole)},
		{"IPv6, cut", pcapOf(t, six, 80, layers.LinkTypeEthernet, whole)},
		{"raw", pcapOf(t, plain, 65535, layers.LinkTypeRaw, bare())},
		{"raw IPv6", pcapOf(t, six, 65535, layers.LinkTypeRaw, bare())},
		{"Linux cooked", pcapOf(t, plain, 65535, layers.LinkTypeLinuxSLL, bare(sll...))},
		{"Linux cooked 2", pcapOf(t, plain, 65535, layers.LinkType(20), bare(sll2...))},
		{"loopback", pcapOf(t, plain, 65535, layers.LinkTypeNull, bare(2, 0, 0, 0))},
		{"pcapng", pcapngOf(t, plain)},
		{"pcapng, IPv6", pcapngOf(t, six)},
	} {
		if tt.name == "Linux cooked 2" { // gopacket's type is a byte
			tt.file[20], tt.file[21] = 276%256, 276/256
		}
		o := run(t, tt.file, config("rr", "wlc"))
		if !reflect.DeepEqual(o.Figures, want.Figures) || o.Stats.Opened != want.Stats.Opened || len(o.Stats.Notes()) != 0 {
			t.Errorf("%s: %+v\n%+v\nwant %+v", tt.name, o.Stats, o.Figures, want.Figures)
		}
	}
}

func TestConnectionsAreHeldAsLongAsTheyLive(t *testing.T) {
	o := run(t, pcapOf(t, traffic(t, 100, false), 65535, layers.LinkTypeEthernet, whole), Config{
		Servers: config().Servers, Schedulers: []string{"wlc", "rr"}, Services: []Service{{Proto: 6, Net: netip.MustParsePrefix("192.0.0.100/32"), Port: 80}},
	})
	f := o.Figures[0]
	active := int32(0)
	for _, s := range f.Servers {
		active += s.Active
	}
	// Ten connections a second of one second each.
	if f.Offered != 100 || active != 10 || f.Samples < 8 || f.Held.MaxMean > 1.4 || f.New.MaxMean > 1.2 {
		t.Errorf("%d active\n%+v", active, f)
	}
	if o.Stats.Elsewhere != 200 || o.Stats.Lasted.Round(time.Second) != 10*time.Second {
		t.Errorf("%+v", o.Stats)
	}
	if f.Returning != 80 {
		t.Errorf("20 clients come again: %+v", f)
	}
}

func TestServersChangeInMidRecording(t *testing.T) {
	c := config("mh", "rr")
	for _, s := range []string{"5s:remove:10.0.0.1:80", "6s:10.0.0.9:80,weight=3", "1s:10.0.0.2:80,weight=0"} {
		change, err := ParseChange(s)
		if err != nil {
			t.Fatal(err)
		}
		c.Changes = append(c.Changes, change)
	}
	o := run(t, pcapOf(t, traffic(t, 100, false), 65535, layers.LinkTypeEthernet, whole), c)
	rr := o.Figures[1]
	byAddr := map[string]trial.ServerFigures{}
	for _, s := range rr.Servers {
		byAddr[s.Addr.String()] = s
	}
	if byAddr["10.0.0.1:80"].Listed || byAddr["10.0.0.9:80"].Weight != 3 || byAddr["10.0.0.9:80"].Conns == 0 || byAddr["10.0.0.2:80"].Conns > 10 {
		t.Errorf("%+v", rr.Servers)
	}
	if mh := o.Figures[0]; mh.AfterChange == 0 || mh.MovedByChange >= rr.MovedByChange {
		t.Errorf("mh moved %d of %d by changes, rr %d", mh.MovedByChange, mh.AfterChange, rr.MovedByChange)
	}
}

// What is broken is skipped, and what is behind it is read.
func TestBrokenCapturesAreReadAsFarAsPossible(t *testing.T) {
	list := traffic(t, 60, false)
	clean := pcapOf(t, list, 65535, layers.LinkTypeEthernet, whole)
	ng := pcapngOf(t, list)
	junk := bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef, 0xff}, 400)
	middle := func(b []byte) int { return len(b) / 2 }
	insert := func(b []byte, at int) []byte { return append(append(bytes.Clone(b[:at]), junk...), b[at:]...) }
	overwrite := func(b []byte, at int) []byte {
		c := bytes.Clone(b)
		copy(c[at:], junk)
		return c
	}
	for _, tt := range []struct {
		name string
		file []byte
		cut  bool
	}{
		{"pcap, something between", insert(clean, middle(clean)), false},
		{"pcap, overwritten", overwrite(clean, middle(clean)), false},
		{"pcapng, something between", insert(ng, middle(ng)), false},
		{"pcapng, overwritten", overwrite(ng, middle(ng)), false},
		{"pcap, cut", clean[:len(clean)-7], true},
		{"pcapng, cut", ng[:len(ng)-7], true},
	} {
		o := run(t, tt.file, config("rr"))
		if o.Stats.Packets < uint64(len(list)-20) || o.Stats.Packets > uint64(len(list)) || o.Stats.Cut != tt.cut || (o.Stats.Corrupt == 0) != tt.cut {
			t.Errorf("%s: %+v, the recording has %d packets", tt.name, o.Stats, len(list))
		}
		if notes := strings.Join(o.Stats.Notes(), "\n"); !tt.cut && !strings.Contains(notes, "first at byte ") || tt.cut && !strings.Contains(notes, "ends within a packet") {
			t.Errorf("%s: notes %s", tt.name, notes)
		}
	}
}

func TestWhatIsNoRecordingIsRefused(t *testing.T) {
	for _, tt := range []struct{ file, says string }{
		{"", "it is empty"},
		{"\x7fELF\x00\x00", "neither pcap, pcapng nor a trace in CSV: it begins with 7f 45 4c 46"},
		{"\xd4\xc3\xb2\xa1\x02\x00", "ends within its header"},
		{"when,who\n1,2\n", `line 1: there is no column "time" among when, who`},
		{"time,event,client\n", `needs one "id"`},
		{strings.Repeat("x", 1<<17), "token too long"},
		{"\x1f\x8b123", "gzip"},
	} {
		if _, err := Run(t.Context(), strings.NewReader(tt.file), config("rr")); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%.20q: %v, want one that says %q", tt.file, err, tt.says)
		}
	}
	for _, c := range []Config{{}, {Servers: append(config().Servers, config().Servers[0])}, config("nosuch"), config(make([]string, 99)...)} {
		if _, err := Run(t.Context(), strings.NewReader("time,client\n"), c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestTracesOfConnections(t *testing.T) {
	c := config("rr")
	o := run(t, []byte(`client,time,duration,protocol,virtual,virtual_port,unknown
10.1.1.1,100.5,2,tcp,192.0.2.9,80,x
2001:db8::1,101,0.25,TCP,192.0.2.9,80,x

10.1.1.2,101.1,10,udp
10.1.1.3,101.0,10,udp
10.1.1.4,110,,
nobody,111,1
10.1.1.4,soon,1
10.1.1.4,111,-1
10.1.1.4,112,1,icmp
10.1.1.4,112,1,tcp,x
10.1.1.4,112,1,tcp,192.0.2.9,70000
`), c)
	f := o.Figures[0]
	active, inactive := int32(0), int32(0)
	for _, s := range f.Servers {
		active, inactive = active+s.Active, inactive+s.Inactive
	}
	if f.Offered != 5 || active != 1 || inactive != 2 || o.Stats.Corrupt != 6 || o.Stats.Backward != 1 || o.Stats.CorruptAt != 8 {
		t.Errorf("%d active, %d inactive: %+v\n%+v", active, inactive, o.Stats, f)
	}
	if n := strings.Join(o.Stats.Notes(), "\n"); !strings.Contains(n, `line 8: client "nobody" is no address`) {
		t.Errorf("notes %s", n)
	}
	c.Services = []Service{{Proto: 6, Net: netip.MustParsePrefix("192.0.2.0/24"), Port: 80}}
	if o := run(t, []byte("time,client,virtual,virtual_port\n1,10.0.0.1,192.0.2.9,80\n2,10.0.0.1,192.0.2.9,81\n3,10.0.0.1,10.0.0.1,80\n"), c); o.Stats.Opened != 1 || o.Stats.Elsewhere != 2 {
		t.Errorf("%+v", o.Stats)
	}
}

// An anonymised trace makes schedulers that don't go by addresses do the same as the capture that it was made from.
func TestAnAnonymisedTraceReplaysLikeItsCapture(t *testing.T) {
	var trace bytes.Buffer
	c := config("rr", "wlc", "sed", "wrr")
	c.Anonymise, c.Key = &trace, []byte("a key")
	file := pcapOf(t, traffic(t, 100, false), 65535, layers.LinkTypeEthernet, whole)
	want := run(t, file, c)
	c.Anonymise = nil
	got := run(t, trace.Bytes(), c)
	if got.Stats.Kind != "trace" || got.Stats.Corrupt != 0 {
		t.Fatalf("%+v", got.Stats)
	}
	for i := range want.Figures { // two clients may have the same place in the memory of clients, or not
		for _, f := range []*trial.Figures{&want.Figures[i], &got.Figures[i]} {
			f.Returning, f.Moved = 0, 0
		}
	}
	if !reflect.DeepEqual(got.Figures, want.Figures) {
		t.Errorf("%+v\nwant %+v", got.Figures, want.Figures)
	}
	if bytes.Contains(trace.Bytes(), []byte("192.1.")) || bytes.Contains(trace.Bytes(), []byte("192.0.0.100")) {
		t.Error("there are addresses of the capture in it")
	}
	var again bytes.Buffer
	c.Anonymise = &again
	run(t, file, c)
	if !bytes.Equal(again.Bytes(), trace.Bytes()) {
		t.Error("the same key gives another trace")
	}
}

// The published vectors of Crypto-PAn's sample program.
func TestAnonymiserIsCryptoPAn(t *testing.T) {
	a := newAnonymiser([32]byte{21, 34, 23, 141, 51, 164, 207, 128, 19, 10, 91, 22, 73, 144, 125, 16, 216, 152, 143, 131, 121, 121, 101, 39, 98, 87, 76, 45, 42, 132, 34, 2})
	for from, to := range map[string]string{
		"128.11.68.132": "135.242.180.132", "129.118.74.4": "134.136.186.123", "130.132.252.244": "133.68.164.234",
	} {
		if got := a.Addr(packet.AddrFrom(netip.MustParseAddr(from))); got.String() != to {
			t.Errorf("%s becomes %v, want %s", from, got, to)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	common := func(x, y packet.Addr) (n int) {
		a, b := x.As16(), y.As16()
		for ; n < 128 && (a[n/8]^b[n/8])>>(7-n%8)&1 == 0; n++ {
		}
		return n
	}
	for range 2000 {
		x, y := packet.AddrFrom4(random.Uint32()), packet.AddrFrom4(random.Uint32())
		if random.IntN(2) == 0 {
			x, y = packet.AddrFromWords(random.Uint64()|1<<63, random.Uint64()), packet.AddrFromWords(random.Uint64()|1<<63, random.Uint64())
		}
		if bit := random.IntN(32); bit > 0 {
			y = mixed(x, y, bit)
		}
		if got, want := common(a.Addr(x), a.Addr(y)), common(x, y); got != want {
			t.Fatalf("%v and %v have %d bits in common, after it %d", x, y, want, got)
		}
	}
}

// mixed has the first bits of x, of IPv6 three times as many, and then those of y.
func mixed(x, y packet.Addr, bits int) packet.Addr {
	if x.Is4() {
		mask := uint32(1)<<(32-bits) - 1
		return packet.AddrFrom4(x.V4()&^mask | y.V4()&mask)
	}
	hi, lo := x.Words()
	yhi, ylo := y.Words()
	if n := 3 * bits; n >= 64 {
		mask := uint64(1)<<(128-n) - 1
		return packet.AddrFromWords(hi, lo&^mask|ylo&mask)
	}
	mask := uint64(1)<<(64-3*bits) - 1
	return packet.AddrFromWords(hi&^mask|yhi&mask, ylo)
}

func TestInterruptedReplayHasWhatItGotSoFar(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := config("rr")
	c.Progress = func(int64) { cancel() }
	o, err := Run(ctx, io.MultiReader(bytes.NewReader(pcapOf(t, traffic(t, 2000, false), 65535, layers.LinkTypeEthernet, whole))), c)
	if err != nil || !o.Partial || o.Stats.Packets == 0 || o.Figures[0].Offered == 0 || !o.Result("x").Partial {
		t.Errorf("%v, %+v", err, o)
	}
}

func TestParsing(t *testing.T) {
	for text, want := range map[string]string{
		"tcp:192.0.2.100:80": "{tcp 192.0.2.100/32 80}", "192.0.2.0/24": "{ip 192.0.2.0/24 0}", "udp:[2001:db8::1]:53": "{udp 2001:db8::1/128 53}",
		"2001:db8::/32": "{ip 2001:db8::/32 0}", "192.0.2.1:x": "", "": "", "icmp:1.2.3.4": "", "192.0.2.1:65536": "",
	} {
		got := ""
		if s, err := ParseService(text); err == nil {
			got = fmt.Sprint(s)
		}
		if got != want {
			t.Errorf("ParseService(%q) = %s, want %s", text, got, want)
		}
	}
	for text, ok := range map[string]bool{
		"10.0.0.1:80": true, "10.0.0.1:80,weight=3,upper=9,lower=2": true, "10.0.0.1": false, "10.0.0.1:80,weight=x": false, "10.0.0.1:80,size=1": false, "": false,
	} {
		if _, err := ParseServer(text); (err == nil) != ok {
			t.Errorf("ParseServer(%q): %v", text, err)
		}
	}
	for text, ok := range map[string]bool{"1m:remove:10.0.0.1:80": true, "30s:10.0.0.1:80,weight=0": true, "-1s:10.0.0.1:80": false, "x:10.0.0.1:80": false, "1s": false} {
		if _, err := ParseChange(text); (err == nil) != ok {
			t.Errorf("ParseChange(%q): %v", text, err)
		}
	}
}

func TestOutcomeIsAResult(t *testing.T) {
	o := run(t, pcapOf(t, traffic(t, 50, false), 65535, layers.LinkTypeEthernet, whole), config("rr", "sh"))
	f := o.Result("a test")
	var b bytes.Buffer
	if err := f.Encode(&b); err != nil {
		t.Fatal(err)
	}
	rows := f.Scenarios[0].Rows
	if len(rows) != 2 || rows[1].Subject != "sh" || rows[1].Values["imbalance-new"].Value <= rows[0].Values["imbalance-new"].Value || len(rows[0].Parts["server-peak"]) != 4 {
		t.Errorf("%s", &b)
	}
	b.Reset()
	if err := o.Text(&b); err != nil || !strings.Contains(b.String(), "10.0.0.4:80") {
		t.Errorf("%v\n%s", err, &b)
	}
}
