package replay

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// mostCaptured is the longest packet that a capture may hold, as in libpcap.
const mostCaptured = 256 << 10

// record is a packet of a capture.
type record struct {
	at     int64  // nanoseconds since 1970; 0 if the capture doesn't say
	data   []byte // what was kept of it, until the next one is read
	length int    // of what was on the wire
	link   uint32 // LINKTYPE_*
}

// capture reads pcap and pcapng from a stream. What makes no sense is skipped up to the next place that does, and counted.
// It is written here, and not taken from a library, because those that there are end with the first broken record.
type capture struct {
	in    *bufio.Reader
	order binary.ByteOrder
	ng    bool
	unit  int64 // nanoseconds of pcap's fractions of a second
	snap  uint32
	link  uint32
	last  int64 // time of the last record
	ports []port
	off   int64

	corrupt      uint64 // stretches that were skipped,
	firstCorrupt int64  // where the first begins,
	lost         int64  // and their bytes
	cut          bool   // the file ends within a record
}

// port is an interface of pcapng's.
type port struct {
	link   uint32
	perSec uint64 // units of time in a second
	offset int64  // seconds
}

// errNoCapture says that a stream begins like no capture.
var errNoCapture = errors.New("it begins neither like pcap nor like pcapng")

const (
	magicMicros = 0xa1b2c3d4
	magicNanos  = 0xa1b23c4d
	magicNG     = 0x0a0d0d0a
	orderNG     = 0x1a2b3c4d
	fileHead    = 24
	recordHead  = 16
)

// openCapture begins to read; the buffer must have room for the longest record.
func openCapture(in *bufio.Reader) (*capture, error) {
	c := &capture{in: in, firstCorrupt: -1}
	head, err := in.Peek(4)
	if err != nil {
		return nil, errNoCapture
	}
	if binary.LittleEndian.Uint32(head) == magicNG {
		c.ng, c.order = true, binary.LittleEndian
		return c, nil
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case magicMicros:
			c.order, c.unit = order, int64(time.Microsecond)
		case magicNanos:
			c.order, c.unit = order, 1
		}
	}
	if c.order == nil {
		return nil, errNoCapture
	}
	if head, err = in.Peek(fileHead); err != nil {
		return nil, fmt.Errorf("the capture ends within its header, after %d bytes", len(head))
	}
	c.snap, c.link = c.order.Uint32(head[16:]), c.order.Uint32(head[20:])&0xfffffff
	c.skip(fileHead)
	return c, nil
}

func (c *capture) skip(n int) {
	n, _ = c.in.Discard(n) // what was peeked at is there
	c.off += int64(n)
}

// next reads the next packet. The error is io.EOF at the end, or the stream's.
func (c *capture) next(r *record) error {
	for {
		var ok bool
		var err error
		if c.ng {
			ok, err = c.block(r)
		} else {
			ok, err = c.packet(r)
		}
		if ok || err != nil {
			return err
		}
	}
}

// peek is the next n bytes. At the end of the file, or if they aren't all there, it is io.EOF.
func (c *capture) peek(n int) ([]byte, error) {
	b, err := c.in.Peek(n)
	if len(b) == n {
		return b, nil
	}
	if errors.Is(err, io.EOF) {
		c.cut = c.cut || len(b) > 0
		c.skip(len(b))
	}
	return nil, err
}

// packet reads pcap's next record; ok is false if it was none.
func (c *capture) packet(r *record) (ok bool, err error) {
	h, err := c.peek(recordHead)
	if err != nil {
		return false, err
	}
	if !c.plausible(h) {
		return false, c.resync(func() bool { return c.recordAhead() })
	}
	n := int(c.order.Uint32(h[8:]))
	b, err := c.peek(recordHead + n)
	if err != nil {
		return false, err
	}
	r.at = int64(c.order.Uint32(b))*int64(time.Second) + int64(c.order.Uint32(b[4:]))*c.unit
	r.length, r.link, r.data = int(c.order.Uint32(b[12:])), c.link, b[recordHead:]
	c.last = r.at
	c.skip(recordHead + n) // leaves the bytes where they are until the next read
	return true, nil
}

// plausible says that a record may begin with h.
func (c *capture) plausible(h []byte) bool {
	fraction, kept, length := c.order.Uint32(h[4:]), c.order.Uint32(h[8:]), c.order.Uint32(h[12:])
	return int64(fraction)*c.unit < int64(time.Second) && kept > 0 && kept <= max(c.snap, 65535) && kept <= mostCaptured && kept <= length && length < 1<<24
}

// recordAhead says that a record begins here, and another behind it or the end: so much chance isn't. Its time must be near
// that of the last one.
func (c *capture) recordAhead() bool {
	h, err := c.in.Peek(recordHead)
	if err != nil || !c.plausible(h) {
		return false
	}
	if away := int64(c.order.Uint32(h))*int64(time.Second) - c.last; c.last != 0 && (away > int64(24*time.Hour) || away < -int64(24*time.Hour)) {
		return false
	}
	n := recordHead + int(c.order.Uint32(h[8:]))
	b, _ := c.in.Peek(n + recordHead)
	return len(b) == n || len(b) == n+recordHead && c.plausible(b[n:])
}

// resync skips bytes until ahead says that something sensible begins.
func (c *capture) resync(ahead func() bool) error {
	c.corrupt++
	if c.firstCorrupt < 0 {
		c.firstCorrupt = c.off
	}
	for {
		if _, err := c.in.Peek(1); err != nil {
			return err
		}
		c.skip(1)
		c.lost++
		if ahead() {
			return nil
		}
	}
}

// The blocks of pcapng that say something to us.
const (
	blockInterface = 1
	blockOldPacket = 2
	blockSimple    = 3
	blockNames     = 4
	blockStats     = 5
	blockPacket    = 6
	blockHead      = 8
	blockLeast     = 12
	blockMost      = mostCaptured + 64<<10
	optionEnd      = 0
	optionUnit     = 9
	optionOffset   = 14
)

// block reads pcapng's next block; ok says that it was a packet.
func (c *capture) block(r *record) (ok bool, err error) {
	b, err := c.peek(blockLeast)
	if err != nil {
		return false, err
	}
	kind, n := c.order.Uint32(b), int(c.order.Uint32(b[4:]))
	if kind == magicNG { // the same in both orders; its length is in that of its section
		switch {
		case binary.LittleEndian.Uint32(b[8:]) == orderNG:
			c.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]) == orderNG:
			c.order = binary.BigEndian
		default:
			return false, c.resync(c.blockAhead)
		}
		n = int(c.order.Uint32(b[4:]))
	}
	if n < blockLeast || n%4 != 0 || n > blockMost {
		return false, c.resync(c.blockAhead)
	}
	if b, err = c.peek(n); err != nil {
		return false, err
	}
	if int(c.order.Uint32(b[n-4:])) != n {
		return false, c.resync(c.blockAhead)
	}
	body := b[blockHead : n-4]
	switch kind {
	case magicNG:
		c.ports = c.ports[:0]
	case blockInterface:
		ok = c.describe(body)
		if ok {
			c.skip(n)
			return false, nil
		}
	case blockPacket, blockOldPacket, blockSimple:
		ok = c.inBlock(kind, body, r)
		if ok {
			c.skip(n)
			return true, nil
		}
	default:
		ok = true
	}
	if kind != magicNG && !ok { // its lengths are right, what it says isn't: one block is lost
		c.corrupt++
		if c.firstCorrupt < 0 {
			c.firstCorrupt = c.off
		}
		c.lost += int64(n)
	}
	c.skip(n)
	return false, nil
}

// blockAhead says that a block of a known kind begins here, with its length at both ends.
func (c *capture) blockAhead() bool {
	b, err := c.in.Peek(blockLeast)
	if err != nil {
		return false
	}
	switch c.order.Uint32(b) {
	case magicNG, blockInterface, blockOldPacket, blockSimple, blockNames, blockStats, blockPacket:
	default:
		return false
	}
	n := int(c.order.Uint32(b[4:]))
	if n < blockLeast || n%4 != 0 || n > blockMost {
		return false
	}
	b, _ = c.in.Peek(n)
	return len(b) == n && int(c.order.Uint32(b[n-4:])) == n
}

// mostPorts is how many interfaces of a section are kept.
const mostPorts = 1 << 12

// describe takes an interface description block in.
func (c *capture) describe(b []byte) bool {
	if len(b) < 8 || len(c.ports) >= mostPorts {
		return false
	}
	p := port{link: uint32(c.order.Uint16(b)), perSec: 1e6}
	for b = b[8:]; len(b) >= 4; {
		code, n := c.order.Uint16(b), int(c.order.Uint16(b[2:]))
		if code == optionEnd || 4+n > len(b) {
			break
		}
		switch v := b[4 : 4+n]; {
		case code == optionUnit && n >= 1 && v[0]&0x80 != 0 && v[0]&0x7f < 63:
			p.perSec = 1 << (v[0] & 0x7f)
		case code == optionUnit && n >= 1 && v[0] <= 18:
			p.perSec = uint64(math.Pow10(int(v[0])))
		case code == optionOffset && n >= 8:
			p.offset = int64(c.order.Uint64(v))
		}
		b = b[min(4+(n+3)&^3, len(b)):]
	}
	c.ports = append(c.ports, p)
	return true
}

// inBlock takes a packet out of its block.
func (c *capture) inBlock(kind uint32, b []byte, r *record) bool {
	at, head := 0, 20
	var id uint32
	switch {
	case kind == blockSimple:
		head = 4
		at = -1
	case len(b) < 20:
		return false
	case kind == blockOldPacket:
		id = uint32(c.order.Uint16(b))
		at = 4
	default:
		id = c.order.Uint32(b)
		at = 4
	}
	if len(b) < head || int64(id) >= int64(len(c.ports)) {
		return false
	}
	p := &c.ports[id]
	r.link = p.link
	if kind == blockSimple {
		r.at, r.length = c.last, int(c.order.Uint32(b))
		r.data = b[4:min(len(b), 4+r.length)]
		return r.length >= 0 && r.length < 1<<24
	}
	units := uint64(c.order.Uint32(b[at:]))<<32 | uint64(c.order.Uint32(b[at+4:]))
	kept := int(c.order.Uint32(b[12:]))
	r.length = int(c.order.Uint32(b[16:]))
	if kept > len(b)-head || kept > r.length || r.length >= 1<<24 {
		return false
	}
	seconds := int64(units/p.perSec) + p.offset
	if seconds < 0 || seconds > math.MaxInt64/int64(time.Second)-1 {
		return false
	}
	r.at = seconds*int64(time.Second) + int64(float64(units%p.perSec)/float64(p.perSec)*1e9)
	r.data = b[head : head+kept]
	c.last = r.at
	return true
}
