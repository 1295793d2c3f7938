package link

import (
	"sync/atomic"
	"syscall"
)

// counters are a link's Stats while it runs. The worker adds once per batch, not once per frame.
type counters struct {
	rxFrames, rxBytes, rxTruncated, rxRingFull, rxError, rxRestarts atomic.Uint64
	txFrames, txBytes, txNoBuffer, txTooLong, txError               atomic.Uint64
}

// snapshot reads every counter. Counters of one snapshot may be a batch apart from each other.
func (c *counters) snapshot() Stats {
	return Stats{
		RxFrames:    c.rxFrames.Load(),
		RxBytes:     c.rxBytes.Load(),
		RxTruncated: c.rxTruncated.Load(),
		RxRingFull:  c.rxRingFull.Load(),
		RxError:     c.rxError.Load(),
		RxRestarts:  c.rxRestarts.Load(),
		TxFrames:    c.txFrames.Load(),
		TxBytes:     c.txBytes.Load(),
		TxNoBuffer:  c.txNoBuffer.Load(),
		TxTooLong:   c.txTooLong.Load(),
		TxError:     c.txError.Load(),
	}
}

// refused counts n frames that were not sent because of errno.
func (c *counters) refused(errno syscall.Errno, n int) {
	switch errno {
	case syscall.ENOBUFS, syscall.EAGAIN:
		c.txNoBuffer.Add(uint64(n))
	case syscall.EMSGSIZE:
		c.txTooLong.Add(uint64(n))
	default:
		c.txError.Add(uint64(n))
	}
}

// received counts the frames of one Recv.
func (c *counters) received(frames []Frame) {
	var bytes, truncated uint64
	for i := range frames {
		bytes += uint64(len(frames[i].Eth()))
		if frames[i].Truncated {
			truncated++
		}
	}
	c.rxFrames.Add(uint64(len(frames)))
	c.rxBytes.Add(bytes)
	if truncated > 0 {
		c.rxTruncated.Add(truncated)
	}
}
