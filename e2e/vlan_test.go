package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// tag is a VLAN tag: its protocol, priority and number. Number 0 is a priority alone.
type tag struct {
	tpid     uint16
	priority uint16
	vlan     uint16
}

const (
	customerTag = 0x8100 // 802.1Q
	serviceTag  = 0x88a8 // 802.1ad, the outer one of QinQ
)

// tagged is a frame with tags in it, the outermost first.
func tagged(frame []byte, tags ...tag) []byte {
	b := slices.Clone(frame[:12])
	for _, t := range tags {
		b = binary.BigEndian.AppendUint16(b, t.tpid)
		b = binary.BigEndian.AppendUint16(b, t.priority<<13|t.vlan)
	}
	return append(b, frame[12:]...)
}

// datagram is the frame of a UDP datagram without a checksum.
func datagram(to, from []byte, src, dst netip.AddrPort, payload string) []byte {
	ip := []byte{0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protoUDP, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+len(payload)))
	ip = slices.Concat(ip, src.Addr().AsSlice(), dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], ^onesSum(ip))
	udp := binary.BigEndian.AppendUint16(nil, src.Port())
	udp = binary.BigEndian.AppendUint16(udp, dst.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	return slices.Concat(to, from, []byte{8, 0}, ip, udp, []byte{0, 0}, []byte(payload))
}

// Frames with VLAN tags on an interface that isn't a VLAN's: a mere priority is looked through, as the host does it; what
// belongs to a VLAN is none of uvs's business, though it is addressed to it, and no tag however strange upsets it.
func TestTaggedFramesOnTheWire(t *testing.T) {
	for link, mac := range map[string]string{"ring": "virtual", "simple": "interface"} {
		t.Run(link+"/"+mac, func(t *testing.T) {
			methods(t, func(t *testing.T, cfg rigConfig) {
				cfg.Args = []string{"--link", link, "--mac", mac}
				r := newRig(t, cfg)
				r.count(2) // everybody knows everybody
				client := r.Clients[0]
				var uvs [6]byte
				_, err := fmt.Sscanf(r.macOf("eth0"), "%x:%x:%x:%x:%x:%x", &uvs[0], &uvs[1], &uvs[2], &uvs[3], &uvs[4], &uvs[5])
				must(t, err)
				for i, c := range []struct {
					name   string
					tags   []tag
					served bool
				}{
					{"untagged", nil, true},
					{"priority", []tag{{customerTag, 5, 0}}, true},
					{"priority of 802.1ad", []tag{{serviceTag, 3, 0}}, true},
					{"VLAN", []tag{{customerTag, 0, 7}}, false},
					{"VLAN and priority", []tag{{customerTag, 5, 7}}, false},
					{"VLAN of 802.1ad", []tag{{serviceTag, 0, 7}}, false},
					{"QinQ", []tag{{serviceTag, 0, 7}, {customerTag, 0, 8}}, false},
					{"QinQ, the outer one a priority", []tag{{serviceTag, 3, 0}, {customerTag, 0, 8}}, false},
					{"two of 802.1Q", []tag{{customerTag, 0, 7}, {customerTag, 0, 8}}, false},
					{"a priority within a VLAN", []tag{{customerTag, 0, 7}, {customerTag, 5, 0}}, false},
					{"three", []tag{{serviceTag, 0, 7}, {serviceTag, 0, 8}, {customerTag, 0, 9}}, false},
				} {
					from := netip.AddrPortFrom(client.Addr(), uint16(20000+i))
					conn, err := client.ListenPacket("udp", from.String()) // lest its host refuse the answer
					must(t, err)
					before := r.status()
					stop := r.captureDirector()
					sendFrame(t, client.Namespace, "eth0", tagged(datagram(uvs[:], client.Legs[0].MAC, from, r.udpAddr(), c.name), c.tags...))
					if c.served {
						conn.SetReadDeadline(time.Now().Add(10 * time.Second))
						answer := make([]byte, 100)
						n, _, err := conn.ReadFrom(answer)
						if err != nil || !strings.HasSuffix(string(answer[:n]), c.name) {
							t.Errorf("%s: answered %q, %v", c.name, answer[:n], err)
						}
					} else {
						eventually(t, "the frame was passed over", func() (bool, any) {
							s := r.status()
							return s.Packets.Passed > before.Packets.Passed, s.Packets
						})
					}
					for _, w := range slices.Concat(stop()...) {
						if w.Out && w.proto == protoUDP && !c.served || w.Out && (w.kind == customerTag || w.kind == serviceTag) {
							t.Errorf("%s: the director sent %v", c.name, w)
						}
					}
					if now := r.status(); now.Packets.Dropped != before.Packets.Dropped {
						t.Errorf("%s: drops went from %+v to %+v", c.name, before.Drops, now.Drops)
					}
					conn.Close()
				}
				r.exercise()
			})
		})
	}
}
