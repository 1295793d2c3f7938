package packet

import "encoding/binary"

// TCP options (RFC 9293 section 3.2, RFC 2018).
const (
	tcpOptEnd  = 0
	tcpOptNop  = 1
	tcpOptSACK = 5
)

// SACKBlock is one block of a selective acknowledgement (RFC 2018 section 3): the bytes from Left up to Right, not
// included, have arrived.
type SACKBlock [8]byte

// Left is the sequence number of the block's first byte.
func (b *SACKBlock) Left() uint32 { return binary.BigEndian.Uint32(b[0:4]) }

// Right is the sequence number behind the block's last byte.
func (b *SACKBlock) Right() uint32 { return binary.BigEndian.Uint32(b[4:8]) }

// Set replaces both; the checksum is not updated.
func (b *SACKBlock) Set(left, right uint32) {
	binary.BigEndian.PutUint32(b[0:4], left)
	binary.BigEndian.PutUint32(b[4:8], right)
}

// SACKBlocks returns the blocks of the selective acknowledgement among TCP options, and where in options they begin; n is
// 0 if there is none, or if the options make no sense. There are at most four.
func SACKBlocks(options []byte) (blocks [4]*SACKBlock, n, at int) {
	for i := 0; i < len(options); {
		switch options[i] {
		case tcpOptEnd:
			return blocks, 0, 0
		case tcpOptNop:
			i++
			continue
		}
		if i+1 >= len(options) {
			return blocks, 0, 0
		}
		length := int(options[i+1])
		if length < 2 || i+length > len(options) {
			return blocks, 0, 0
		}
		if options[i] == tcpOptSACK {
			if length%8 != 2 || length > 34 || length < 10 {
				return blocks, 0, 0
			}
			for at := i + 2; at < i+length; at += 8 {
				blocks[n] = (*SACKBlock)(options[at:])
				n++
			}
			return blocks, n, i + 2
		}
		i += length
	}
	return blocks, 0, 0
}
