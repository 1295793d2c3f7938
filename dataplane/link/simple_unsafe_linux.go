package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// auxMessage is the control message that PACKET_AUXDATA adds to a received frame: VLAN tag and lengths.
type auxMessage struct {
	unix.Cmsghdr
	unix.TpacketAuxdata
	_ [4]byte // control messages are aligned to 8
}

var (
	_ [20]byte = [unsafe.Sizeof(unix.TpacketAuxdata{})]byte{}
	_ [16]byte = [unsafe.Offsetof(unix.TpacketAuxdata{}.Vlan_tci)]byte{}
)

const auxMessageLen = int(unsafe.Sizeof(auxMessage{}))

// setControl makes the kernel write the message's control data to aux.
func (aux *auxMessage) setControl(hdr *unix.Msghdr) {
	hdr.Control = (*byte)(unsafe.Pointer(aux))
	hdr.SetControllen(auxMessageLen)
}

// setName makes the kernel write the frame's address to name.
func setName(hdr *unix.Msghdr, name *unix.RawSockaddrLinklayer) {
	hdr.Name = (*byte)(unsafe.Pointer(name))
	hdr.Namelen = uint32(unsafe.Sizeof(*name))
}
