package ftp

import (
	"net/netip"
	"testing"

	"uvs/packet"
)

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

var (
	control4 = Control{Client: addr("192.0.2.7"), Virtual: addr("10.9.0.100"), VirtualPort: 21, Server: addr("10.1.0.11"), ServerPort: 2121}
	control6 = Control{Client: addr("2001:db8::7"), Virtual: addr("2001:db8:9::100"), VirtualPort: 21, Server: addr("2001:db8:1::11"), ServerPort: 21}
)

func TestCommands(t *testing.T) {
	active := func(to string, port uint16) *Expectation {
		return &Expectation{Client: addr(to), ClientPort: port, VirtualPort: 20, Server: control4.Server, ServerPort: 2120}
	}
	for _, c := range []struct {
		payload string
		mode    mode
		want    *Expectation
	}{
		{"PASV\r\n", modePassive, nil},
		{"pasv\r\n", modePassive, nil},
		{"PASV\n", modePassive, nil},
		{"PASV", modeActive, nil}, // the rest is in the next segment
		{"PASV x\r\n", modeActive, nil},
		{"XPASV\r\n", modeActive, nil},
		{"TYPE I\r\nPASV\r\n", modePassive, nil},
		{"EPSV\r\n", modeExtended, nil},
		{"EPSV 1\r\n", modeExtended, nil},
		{"EPSV 2\r\n", modeActive, nil},
		{"EPSV ALL\r\n", modeActive, nil},
		{"EPSV12\r\n", modeActive, nil},
		{"EPSV ALL\r\nEPSV\r\n", modeExtended, nil},
		{"PASV\r\nEPSV\r\n", modeExtended, nil},
		{"PORT 192,0,2,7,200,10\r\n", modeActive, active("192.0.2.7", 51210)},
		{"port   192,0,2,7,0,1\r\n", modeActive, active("192.0.2.7", 1)},
		{"TYPE A\r\nPORT 192,0,2,7,200,10\r\nLIST\r\n", modeActive, active("192.0.2.7", 51210)},
		{"PASV\r\nPORT 192,0,2,7,200,10\r\n", modeActive, active("192.0.2.7", 51210)},
		{"PORT 192,0,2,7,200,10", modeActive, nil}, // may go on with another digit
		{"PORT 192,0,2,7,200\r\n", modeActive, nil},
		{"PORT 192,0,2,7,200,256\r\n", modeActive, nil},
		{"PORT 192,0,2,,200,1\r\n", modeActive, nil},
		{"PORT192,0,2,7,200,10\r\n", modeActive, nil},
		{"PORT ", modeActive, nil},
		{"EPRT |1|192.0.2.7|51210|\r\n", modeActive, active("192.0.2.7", 51210)},
		{"EPRT !1!192.0.2.7!65535!\r\n", modeActive, active("192.0.2.7", 65535)},
		{"EPRT |2|2001:db8::7|51210|\r\n", modeActive, nil},
		{"EPRT |1|2001:db8::7|51210|\r\n", modeActive, nil},
		{"EPRT |1|192.0.2.7|0|\r\n", modeActive, nil},
		{"EPRT |1|192.0.2.7|65536|\r\n", modeActive, nil},
		{"EPRT |1|192.0.2.7|+1|\r\n", modeActive, nil},
		{"EPRT |1|192.0.2.7|51210\r\n", modeActive, nil},
		{"EPRT |||51210|\r\n", modeActive, nil},
		{"EPRT \r\n", modeActive, nil},
		{"", modeActive, nil},
		{"\r\n", modeActive, nil},
	} {
		var s Session
		x, ok := s.Commands([]byte(c.payload), &control4)
		if s.mode != c.mode || ok != (c.want != nil) || ok && x != *c.want {
			t.Errorf("%q: mode %d, %+v, %v; want mode %d, %+v", c.payload, s.mode, x, ok, c.mode, c.want)
		}
	}
	s := Session{mode: modePassive}
	if s.Commands([]byte("NOOP\r\n"), &control4); s.mode != modePassive {
		t.Error("another command ends what PASV asked for")
	}
}

func TestCommandsOfIPv6(t *testing.T) {
	for payload, want := range map[string]mode{"EPSV\r\n": modeExtended, "EPSV 2\r\n": modeExtended, "EPSV 1\r\n": modeActive, "PASV\r\n": modeActive} {
		var s Session
		if _, ok := s.Commands([]byte(payload), &control6); ok || s.mode != want {
			t.Errorf("%q: mode %d, want %d", payload, s.mode, want)
		}
	}
	var s Session
	x, ok := s.Commands([]byte("EPRT |2|2001:db8::7|5282|\r\n"), &control6)
	if want := (Expectation{control6.Client, 5282, 20, control6.Server, 20}); !ok || x != want {
		t.Errorf("EPRT: %+v, %v, want %+v", x, ok, want)
	}
	if _, ok := s.Commands([]byte("PORT 192,0,2,7,200,10\r\n"), &control6); ok {
		t.Error("PORT on a connection of IPv6 is taken")
	}
}

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		mode    mode
		payload string
		server  string // "" for none
		port    uint16
		text    string // what is replaced
	}{
		{modePassive, "227 Entering Passive Mode (10,1,0,11,156,64)\r\n", "10.1.0.11", 40000, "10,1,0,11,156,64"},
		{modePassive, "227 Entering Passive Mode (10,1,0,11,156,64).\r\n", "10.1.0.11", 40000, "10,1,0,11,156,64"},
		{modePassive, "227 Entering Passive Mode 10,1,0,11,156,64\r\n", "10.1.0.11", 40000, "10,1,0,11,156,64"},
		{modePassive, "227 =10,1,0,11,156,64\r\n", "10.1.0.11", 40000, "10,1,0,11,156,64"},
		{modePassive, "200 ok\r\n227 ok ((10,1,0,11,156,64)\r\n150 go\r\n", "10.1.0.11", 40000, "10,1,0,11,156,64"},
		{modePassive, "227 ok (10,9,9,9,0,1)\r\n", "10.9.9.9", 1, "10,9,9,9,0,1"},
		{modePassive, "227 ok (10,9,0,100,156,64)\r\n", "10.1.0.11", 40000, "10,9,0,100,156,64"}, // it was told its virtual address
		{modePassive, "227-10,1,0,11,156,64\r\n", "", 0, ""},
		{modePassive, "2270 10,1,0,11,156,64\r\n", "", 0, ""},
		{modePassive, "227 (10,1,0,11,156,64", "", 0, ""},
		{modePassive, "227 (10,1,0,11,156)\r\n", "", 0, ""},
		{modePassive, "227 (300,1,0,11,156,64)\r\n", "", 0, ""},
		{modePassive, "227 (\r\n", "", 0, ""},
		{modePassive, "227 ", "", 0, ""},
		{modePassive, "227 no\r\n", "", 0, ""},
		{modePassive, "229 ok (|||40010|)\r\n", "", 0, ""},
		{modeExtended, "229 Entering Extended Passive Mode (|||40010|)\r\n", "10.1.0.11", 40010, "|||40010|"},
		{modeExtended, "229 ok (!!!40010!)\r\n", "10.1.0.11", 40010, "!!!40010!"},
		{modeExtended, "229 ok (|1|10.1.0.11|40010|)\r\n", "10.1.0.11", 40010, "|1|10.1.0.11|40010|"},
		{modeExtended, "229 ok (|2|2001:db8::1|40010|)\r\n", "", 0, ""},
		{modeExtended, "229 ok (||10.1.0.11|40010|)\r\n", "", 0, ""},
		{modeExtended, "229 ok |||40010|\r\n", "", 0, ""},
		{modeExtended, "229 ok (|||40010)\r\n", "", 0, ""},
		{modeExtended, "229 ok (|||)\r\n", "", 0, ""},
		{modeExtended, "229 (", "", 0, ""},
		{modeExtended, "227 ok (10,1,0,11,156,64)\r\n", "", 0, ""},
		{modeActive, "227 ok (10,1,0,11,156,64)\r\n", "", 0, ""},
	} {
		s := Session{mode: c.mode}
		r, found := s.Replies([]byte(c.payload), 5000, &control4)
		if found != Nothing != (c.server != "") {
			t.Errorf("%q: found %d %+v", c.payload, found, r)
			continue
		}
		if found == Nothing {
			continue
		}
		x := r.Expectation(&control4)
		want := Expectation{Client: control4.Client, VirtualPort: c.port, Server: addr(c.server), ServerPort: c.port}
		if found != Named || x != want || c.payload[r.start:r.end] != c.text || r.seq != 5000+uint32(r.start) {
			t.Errorf("%q: found %d, %+v, %q at %d; want %+v, %q", c.payload, found, x, c.payload[r.start:r.end], r.seq, want, c.text)
		}
	}
}

func TestAnswersNameTheVirtualService(t *testing.T) {
	for _, c := range []struct {
		extended bool
		port     uint16
		want     string
	}{
		{false, 40000, "10,9,0,100,156,64"}, {false, 1, "10,9,0,100,0,1"}, {false, 65535, "10,9,0,100,255,255"},
		{true, 1, "|||1|"}, {true, 65535, "|||65535|"},
	} {
		text := textOf(c.extended, control4.Virtual, c.port)
		if got := string(text.b[:text.n]); got != c.want {
			t.Errorf("port %d: %q, want %q", c.port, got, c.want)
		}
	}
	if text := textOf(false, addr("255.255.255.255"), 65535); text.n != maxText {
		t.Errorf("the longest text has %d bytes, want %d", text.n, maxText)
	}
}

func TestRepliesSentAgainAreChangedAgain(t *testing.T) {
	const line = "227 Entering Passive Mode (10,1,0,11,156,64)\r\n"
	s := Session{mode: modePassive}
	r, found := s.Replies([]byte(line), 5000, &control4)
	if found != Named {
		t.Fatal("no reply found")
	}
	s.Answer(&r, control4.Virtual, 40000)
	if s.replies.Delta != 1 || s.replies.PreviousDelta != 0 || s.replies.InitSeq != 5000+uint32(r.end)-1 {
		t.Errorf("shift %+v", s.replies)
	}
	at := r.start
	for _, c := range []struct {
		name    string
		payload string
		seq     uint32
		want    Found
	}{
		{"as it was", line, 5000, Again},
		{"with what came before", "200 ok\r\n" + line, 5000 - 8, Again},
		{"from the middle on", line[5:], 5005, Again},
		{"with what came after", line + "150 go\r\n", 5000, Again},
		{"cut within the text", line[:at+4], 5000, Torn},
		{"the other part", line[at+4:], 5000 + uint32(at) + 4, Torn},
		{"before the text", line[:at], 5000, Nothing},
		{"behind the text", line[r.end:], 5000 + uint32(r.end), Nothing},
		{"what comes next", "227 Entering Passive Mode (10,1,0,11,156,65)\r\n", 5000 + uint32(len(line)), Nothing}, // nobody asked
	} {
		got, found := s.Replies([]byte(c.payload), c.seq, &control4)
		if found != c.want {
			t.Errorf("%s: found %d, want %d", c.name, found, c.want)
		}
		if found == Again && (got.text != r.text || c.payload[got.start:got.end] != "10,1,0,11,156,64") {
			t.Errorf("%s: %q is replaced, by %q", c.name, c.payload[got.start:got.end], got.text.b[:got.text.n])
		}
	}
}

// TestAnUnchangedLengthIsSentAgainToo has a VIP in text as long as the server's address: nothing shifts, but the bytes differ.
func TestAnUnchangedLengthIsSentAgainToo(t *testing.T) {
	c := control4
	c.Virtual = addr("10.9.0.99")
	s := Session{mode: modePassive}
	line := []byte("227 ok (10,1,0,11,156,64)\r\n")
	r, _ := s.Replies(line, 7, &c)
	s.Answer(&r, c.Virtual, 40000)
	if !s.replies.None() {
		t.Errorf("shift %+v", s.replies)
	}
	if _, found := s.Replies(line, 7, &c); found != Again {
		t.Errorf("found %d, want %d", found, Again)
	}
}
