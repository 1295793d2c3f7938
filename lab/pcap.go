package lab

import (
	"encoding/binary"
	"io"
)

// WritePcap writes frames as a capture file that tcpdump and Wireshark read: the classic pcap format with nanosecond
// time stamps, link type Ethernet. A super-frame is one record.
func WritePcap(w io.Writer, frames []CapturedFrame) error {
	const (
		magicNanoseconds = 0xa1b23c4d
		linkEthernet     = 1
		snapLen          = captureBuffer
	)
	le := binary.LittleEndian // readers tell the order from the magic number
	var header []byte
	header = le.AppendUint32(header, magicNanoseconds)
	header = le.AppendUint16(header, 2) // version 2.4
	header = le.AppendUint16(header, 4)
	header = le.AppendUint32(header, 0) // time zone: UTC
	header = le.AppendUint32(header, 0) // accuracy: not stated
	header = le.AppendUint32(header, snapLen)
	header = le.AppendUint32(header, linkEthernet)
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, f := range frames {
		record := make([]byte, 0, 16+len(f.Data))
		record = le.AppendUint32(record, uint32(f.Time.Unix()))
		record = le.AppendUint32(record, uint32(f.Time.Nanosecond()))
		record = le.AppendUint32(record, uint32(len(f.Data))) // stored
		record = le.AppendUint32(record, uint32(len(f.Data))) // on the wire
		if _, err := w.Write(append(record, f.Data...)); err != nil {
			return err
		}
	}
	return nil
}
