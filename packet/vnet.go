package packet

import "encoding/binary"

// VnetLen is the length in bytes of the virtio-net header that stands in front of every frame.
const VnetLen = 10

// Vnet is a view of struct virtio_net_hdr (Virtual I/O Device specification 1.2, section 5.1.6; the short form of
// 10 bytes that PACKET_VNET_HDR=1 gives). Its fields are in the machine's own byte order.
type Vnet [VnetLen]byte

// Flags and GSO types of a virtio-net header.
const (
	VnetNeedsCsum = 1 // the L4 checksum holds only the pseudo-header's sum
	VnetDataValid = 2 // the checksum was verified on receipt

	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3
	GSOTCPv6 = 4
	GSOUDPL4 = 5
	GSOECN   = 0x80 // or'd to a TCP type
)

// Flags is the set of Vnet* flags.
func (v *Vnet) Flags() uint8 { return v[0] }

// SetFlags replaces the set of flags.
func (v *Vnet) SetFlags(f uint8) { v[0] = f }

// NeedsCsum says that the L4 checksum field holds the uncomplemented pseudo-header sum, to be completed by whoever
// puts the frame on a real wire.
func (v *Vnet) NeedsCsum() bool { return v[0]&VnetNeedsCsum != 0 }

// GSOType is the kind of super-frame: GSONone for a single frame, else one of the GSO* types, perhaps with GSOECN.
func (v *Vnet) GSOType() uint8 { return v[1] }

// SetGSOType replaces the kind of super-frame.
func (v *Vnet) SetGSOType(t uint8) { v[1] = t }

// HdrLen is the length in bytes of all headers, Ethernet's included, as a hint for linear allocation.
func (v *Vnet) HdrLen() int { return int(binary.NativeEndian.Uint16(v[2:4])) }

// SetHdrLen replaces the header length.
func (v *Vnet) SetHdrLen(n int) { binary.NativeEndian.PutUint16(v[2:4], uint16(n)) }

// GSOSize is the payload bytes of each segment of a super-frame.
func (v *Vnet) GSOSize() int { return int(binary.NativeEndian.Uint16(v[4:6])) }

// SetGSOSize replaces the payload bytes of each segment.
func (v *Vnet) SetGSOSize(n int) { binary.NativeEndian.PutUint16(v[4:6], uint16(n)) }

// CsumStart is the offset in the Ethernet frame from which the checksum is computed.
func (v *Vnet) CsumStart() int { return int(binary.NativeEndian.Uint16(v[6:8])) }

// SetCsumStart replaces the checksum's start.
func (v *Vnet) SetCsumStart(n int) { binary.NativeEndian.PutUint16(v[6:8], uint16(n)) }

// CsumOffset is the offset of the checksum field after CsumStart.
func (v *Vnet) CsumOffset() int { return int(binary.NativeEndian.Uint16(v[8:10])) }

// SetCsumOffset replaces the checksum field's offset.
func (v *Vnet) SetCsumOffset(n int) { binary.NativeEndian.PutUint16(v[8:10], uint16(n)) }
