package ftp

// Shift is how far the bytes of one direction are shifted against what their sender numbered, after changes to their
// text. It holds what the kernel's struct ip_vs_seq does (ip_vs.h), which connection synchronisation sends: what comes
// after InitSeq is shifted by Delta, the rest by PreviousDelta. The kernel puts InitSeq at the start of the changed
// segment; here it is the last byte of the changed text, so that a segment sent again in other pieces is shifted right.
//
// Only the latest change is known exactly: what came before the one before it must have arrived, as in the kernel.
type Shift struct {
	InitSeq              uint32
	Delta, PreviousDelta int32

	length uint32 // of the changed text, as its sender wrote it
}

// None says that nothing is shifted.
func (s *Shift) None() bool { return s.Delta == 0 && s.PreviousDelta == 0 }

// edit notes that length bytes from seq on were replaced by newLength others.
func (s *Shift) edit(seq uint32, length, newLength int) {
	s.InitSeq, s.length = seq+uint32(length)-1, uint32(length)
	s.PreviousDelta = s.Delta
	s.Delta += int32(newLength - length)
}

// Seq is the sender's sequence number as the receiver is to see it.
func (s *Shift) Seq(seq uint32) uint32 {
	if int32(seq-s.InitSeq) > 0 {
		return seq + uint32(s.Delta)
	}
	return seq + uint32(s.PreviousDelta)
}

// Ack is the receiver's acknowledgement as the sender is to see it. One within the changed text, which the sender doesn't
// know, acknowledges nothing of it.
func (s *Shift) Ack(ack uint32) uint32 {
	a, within := s.back(ack)
	if within {
		return s.InitSeq + 1 - s.length
	}
	return a
}

// Block is a block of a selective acknowledgement as the sender is to see it: with the changed text whole or not at all.
func (s *Shift) Block(left, right uint32) (l, r uint32) {
	l, within := s.back(left)
	if within {
		l = s.InitSeq + 1
	}
	r = s.Ack(right)
	if int32(r-l) < 0 {
		r = l
	}
	return l, r
}

// back turns a number of the receiver's into the sender's; within says that it points into the changed text.
func (s *Shift) back(n uint32) (seq uint32, within bool) {
	end := s.InitSeq + 1
	if seq = n - uint32(s.Delta); int32(seq-end) >= 0 {
		return seq, false
	}
	seq = n - uint32(s.PreviousDelta)
	return seq, int32(seq-(end-s.length)) > 0
}
