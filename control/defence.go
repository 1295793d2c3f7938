package control

import (
	"math/rand/v2"

	"go.uber.org/zap"

	"uvs/service"
)

// defence is what the settings drop_entry, drop_packet and secure_tcp come to at the moment.
type defence struct {
	dropEntry bool // drop random entries of the connection table, every second
	dropRate  int  // drop every so many-th packet that may open a connection; 0 none
	restart   bool // count those packets anew
	secureTCP bool // use the stricter table of TCP states
}

// update is the kernel's update_defense_level (ip_vs_ctl.c), done every second: with so many pages of memory available, it
// moves the automatic modes of s between waiting and active, and says what follows.
func update(s *service.Settings, available int) (d defence) {
	short := available < s.AmemThresh
	d.dropEntry = follow(&s.DropEntry, short)
	switch {
	case !follow(&s.DropPacket, short):
	case s.DropPacket == service.DefenceAlways:
		d.dropRate = s.AmDropRate
	default:
		d.dropRate, d.restart = s.AmemThresh/(s.AmemThresh-available), true
	}
	d.secureTCP = follow(&s.SecureTCP, short)
	return d
}

// follow moves a mode with the memory and says whether its defence is in force.
func follow(m *service.DefenceMode, short bool) bool {
	switch {
	case *m == service.DefenceAuto && short:
		*m = service.DefenceActive
	case *m == service.DefenceActive && !short:
		*m = service.DefenceAuto
	}
	return *m >= service.DefenceActive
}

// Defend does what is due every second while a defence is set. Run calls it; in virtual time the caller does.
func (d *Director) Defend() {
	d.mu.Lock()
	was := d.defence
	d.defendLocked()
	if d.defence.secureTCP != was.secureTCP {
		d.tellConnectionsLocked()
	}
	dropEntry := d.defence.dropEntry
	d.mu.Unlock()
	if dropEntry {
		n := d.cfg.Connections.DropRandom(d.cfg.Now(), rand.Uint32N)
		d.cfg.Log.Debug("drop_entry dropped connections", zap.Int("connections", n))
	}
}

// defendLocked brings the defences in line with settings and memory; telling the connection table is left to the caller.
func (d *Director) defendLocked() {
	was := d.defence
	d.defence = update(&d.settings, d.cfg.AvailablePages())
	if now := d.defence; was.dropRate != now.dropRate || now.restart {
		d.limiter.Set(now.dropRate, now.restart)
	}
	now := d.defence
	if was.dropEntry != now.dropEntry || was.secureTCP != now.secureTCP || (was.dropRate == 0) != (now.dropRate == 0) {
		d.cfg.Log.Info("defences changed", zap.Bool("drop_entry", now.dropEntry), zap.Int("drop_packet", now.dropRate),
			zap.Bool("secure_tcp", now.secureTCP))
	}
}
