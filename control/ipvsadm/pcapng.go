package ipvsadm

import (
	"encoding/binary"
	"fmt"
	"io"

	"uvs/control/api"
)

// pcapng writes traced frames as a capture file that Wireshark opens (draft-ietf-opsawg-pcapng), each with a comment: what
// came in with its verdict, what went out with the number of the frame that it is of. Every event is one write, so that
// whoever follows the file sees whole ones.
type pcapng struct {
	w          io.Writer
	frames     int // written so far; the next has this number plus one, as Wireshark counts
	interfaces map[string]uint32
	buf        []byte
}

// Of the format. Numbers are little-endian: readers tell by the magic.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6 // enhanced packet

	sectionMagic = 0x1a2b3c4d
	linkEthernet = 1

	optionComment    = 1
	optionName       = 2 // of an interface
	optionResolution = 9 // of an interface's time stamps
	optionFlags      = 2 // of a packet
	nanoseconds      = 9 // 10^-9 s

	inbound, outbound = 1, 2

	// maxComment is the longest comment: an option's length has 16 bits.
	maxComment = 0xffff
)

func newPcapng(w io.Writer) (*pcapng, error) {
	p := &pcapng{w: w, interfaces: make(map[string]uint32)}
	p.block(blockSection, func() {
		p.u32(sectionMagic)
		p.u32(1)           // version 1.0: major in the first two bytes, minor in the others
		p.u32(0xffff_ffff) // length of the section: not stated
		p.u32(0xffff_ffff)
	})
	return p, p.flush()
}

// event writes the frames of an event.
func (p *pcapng) event(e *api.TraceEvent) error {
	p.frame(e, e.In, inbound, because(e))
	number := p.frames
	for i := range e.Out {
		p.frame(e, &e.Out[i], outbound, fmt.Sprintf("of frame %d", number))
	}
	return p.flush()
}

func (p *pcapng) frame(e *api.TraceEvent, f *api.TraceFrame, direction uint32, comment string) {
	id, ok := p.interfaces[f.Interface]
	if !ok {
		id = uint32(len(p.interfaces))
		p.interfaces[f.Interface] = id
		p.block(blockInterface, func() {
			p.u32(linkEthernet) // and two reserved bytes
			p.u32(0)            // no limit on a frame's length
			p.option(optionName, []byte(f.Interface))
			p.option(optionResolution, []byte{nanoseconds})
			p.option(0, nil)
		})
	}
	p.frames++
	p.block(blockPacket, func() {
		p.u32(id)
		at := uint64(e.Time.UnixNano())
		p.u32(uint32(at >> 32))
		p.u32(uint32(at))
		p.u32(uint32(len(f.Data)))
		p.u32(uint32(len(f.Data)))
		p.buf = append(p.buf, f.Data...)
		p.pad()
		p.option(optionComment, []byte(comment[:min(len(comment), maxComment)]))
		p.option(optionFlags, binary.LittleEndian.AppendUint32(nil, direction))
		p.option(0, nil)
	})
}

// block puts a block around what body appends: its type and, before and behind, its length.
func (p *pcapng) block(kind uint32, body func()) {
	begin := len(p.buf)
	p.u32(kind)
	p.u32(0)
	body()
	n := uint32(len(p.buf) - begin + 4)
	binary.LittleEndian.PutUint32(p.buf[begin+4:], n)
	p.u32(n)
}

func (p *pcapng) option(code uint16, value []byte) {
	p.buf = binary.LittleEndian.AppendUint16(p.buf, code)
	p.buf = binary.LittleEndian.AppendUint16(p.buf, uint16(len(value)))
	p.buf = append(p.buf, value...)
	p.pad()
}

func (p *pcapng) u32(n uint32) { p.buf = binary.LittleEndian.AppendUint32(p.buf, n) }

// pad fills up to a multiple of four bytes; every block begins at one.
func (p *pcapng) pad() {
	for len(p.buf)%4 != 0 {
		p.buf = append(p.buf, 0)
	}
}

func (p *pcapng) flush() error {
	_, err := p.w.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}
