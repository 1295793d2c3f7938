package dataplane

import (
	"testing"

	"uvs/dataplane/link"
	"uvs/packet"
	"uvs/service"
)

// FuzzReceive sends any bytes, as single frames cut at the given length, through the whole receive path: nothing may crash
// it, and each frame must be accounted for.
func FuzzReceive(f *testing.F) {
	syn := fromClient(f, client, "S", "")
	f.Add(syn, uint16(0), uint8(0), uint8(0))
	f.Add(append(fromClient(f, client, "S", ""), fromClient(f, client, "PA", "data")...), uint16(len(syn)), uint8(1), uint8(1))
	f.Add(fromServer(f, 11, client, "SA", ""), uint16(20), uint8(0), uint8(3))
	f.Add(icmpAbout(f, syn), uint16(0), uint8(5), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16, gso, flags uint8) {
		d := newDirector(t, func(c *Config) { c.Inner = InnerPolicy(flags >> 2 % 3) })
		d.serve(service.TCP, service.Masq, "10.1.0.11:8080")
		d.serve(service.UDP, service.Route, "10.1.0.11:53")
		for i := 0; len(data) > 0 && i < 64; i++ {
			n := len(data)
			if cut > 0 && int(cut) < n {
				n = int(cut)
			}
			fr := link.Frame{Buf: append(make([]byte, packet.VnetLen, packet.VnetLen+n), data[:n]...)}
			v := fr.Vnet()
			v.SetGSOType(gso)
			v.SetGSOSize(int(cut))
			v.SetFlags(flags & 1)
			v.SetCsumStart(int(cut))
			v.SetCsumOffset(int(gso))
			d.mem[int(flags>>1&1)].InjectFrame(fr)
			data = data[n:]
		}
		d.run()
		d.accounted()
		d.now += 60 * second
		d.run()
		if s := d.plane.Stats(); s.Held != 0 {
			t.Errorf("%d frames still held after a minute", s.Held)
		}
	})
}
