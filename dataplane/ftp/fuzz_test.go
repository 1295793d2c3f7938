package ftp

import (
	"bytes"
	"testing"

	"uvs/packet"
)

var fuzzSeeds = []string{
	"PASV\r\n", "EPSV\r\n", "EPSV 1\r\n", "EPSV ALL\r\n", "PORT 192,0,2,7,200,10\r\n", "EPRT |1|192.0.2.7|51210|\r\n",
	"EPRT |2|2001:db8::7|5282|\r\n", "TYPE I\r\nPORT 1,2,3,4,5,6\r\nLIST\r\n", pasvReply,
	"229 Entering Extended Passive Mode (|||40010|)\r\n", "227 =10,1,0,11,156,64\r\n", "229 x (|1|10.1.0.11|40010|)\r\n",
	"200 ok\r\n227 ((10,1,0,11,156,64\r\n", "227 (", "229 (|||", "\r\n\r\n", "227 (0,0,0,0,0,0)\r\n", "EPRT !1!1.1.1.1!1!\r\n",
}

// FuzzCommands wants no panic, and expectations that lie where the client may be.
func FuzzCommands(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, c := range []*Control{&control4, &control6} {
			var s Session
			x, ok := s.Commands(payload, c)
			if ok && (x.Client.Is4() != c.Client.Is4() || x.VirtualPort != c.VirtualPort-1 || x.Server != c.Server || x.ServerPort != c.ServerPort-1) {
				t.Fatalf("%q: %+v", payload, x)
			}
			if ok && s.mode != modeActive && !bytes.Contains(bytes.ToUpper(payload), []byte("SV")) {
				t.Fatalf("%q: mode %d", payload, s.mode)
			}
		}
	})
}

// FuzzReplies wants a rewritten segment to be whole, to say the virtual address in the same place, and nothing else to
// have changed; and the same when it is sent again.
func FuzzReplies(f *testing.F) {
	for i, s := range fuzzSeeds {
		f.Add([]byte(s), uint16(40000+i), i%2 == 0, i%3 == 0)
	}
	f.Fuzz(func(t *testing.T, payload []byte, port uint16, passive, partial bool) {
		if len(payload) > 1460 {
			return
		}
		s := Session{mode: modeExtended}
		if passive {
			s.mode = modePassive
		}
		asked := s.mode
		r, found := s.Replies(payload, 77, &control4)
		if found != Named {
			return
		}
		if r.start < 0 || r.end > len(payload) || r.start >= r.end || !r.Server.Is4() {
			t.Fatalf("%q: %+v", payload, r)
		}
		s.Answer(&r, control4.Virtual, max(port, 1))
		frame := segment(payload, nil, 77, packet.TCPAck, partial, 0)
		p := decode(t, frame)
		first, second, ok := r.Rewrite(make([]byte, Room(len(frame))), frame, p, 1500)
		if !ok || !checksumOK(t, first) {
			t.Fatalf("%q: Rewrite = %v", payload, ok)
		}
		q := decode(t, first)
		got := bytes.Clone(q.Frame[q.Payload:])
		if second != nil {
			if !checksumOK(t, second) || q.IPLen() > 1500 {
				t.Fatalf("%q: bad second segment", payload)
			}
			q = decode(t, second)
			got = append(got, q.Frame[q.Payload:]...)
		}
		text := r.text.b[:r.text.n]
		want := append(append(bytes.Clone(payload[:r.start]), text...), payload[r.end:]...)
		if !bytes.Equal(got, want) {
			t.Fatalf("%q becomes %q, want %q", payload, got, want)
		}
		if again, found := s.Replies(payload, 77, &control4); found != Again || again.start != r.start || again.end != r.end || again.text != r.text {
			t.Fatalf("%q sent again: %d %+v", payload, found, again)
		}
		back := Session{mode: asked}
		read, found := back.Replies(want, 77, &control4)
		if found != Named || read.Port != max(port, 1) {
			t.Fatalf("%q reads back as %d %+v", want, found, read)
		}
	})
}

func BenchmarkControl(b *testing.B) {
	tr := NewTracker()
	for _, text := range []string{"", "NOOP\r\n", "RETR some/file/with/a/name\r\n"} {
		b.Run(text, func(b *testing.B) {
			frame := segment([]byte(text), nil, 1, packet.TCPAck, true, 0)
			p, v := decode(b, frame), (*packet.Vnet)(frame)
			pasv := segment([]byte("PASV\r\n"), nil, 1, packet.TCPAck, true, 0)
			tr.FromClient(1, &control4, decode(b, pasv), (*packet.Vnet)(pasv), true)
			b.ReportAllocs()
			for b.Loop() {
				tr.FromClient(1, &control4, p, v, true)
			}
		})
	}
}
