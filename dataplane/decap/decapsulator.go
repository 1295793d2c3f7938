package decap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"uvs/dataplane/fragment"
	"uvs/dataplane/tun"
)

// Config says what a Decapsulator does.
type Config struct {
	// Directors are the addresses that tunnels may begin at, of either family. At least one.
	Directors []netip.Prefix
	// VIPs are the virtual addresses, which the TUN device will hold, of either family. At least one.
	VIPs []netip.Addr
	// GUEPort is the UDP port that GUE comes to; 0 if none is to be taken.
	GUEPort uint16
	// Device is the TUN device's name. Default uvsdecap0.
	Device string
	// Interface is the only one that tunnelled packets may come in by. Default any. It need not exist yet.
	Interface string
	// Log gets what an operator should know. Default none.
	Log *zap.Logger
}

// DefaultGUEPort is the UDP port that GUE comes to unless another is given: the one that IANA has assigned to it.
const DefaultGUEPort = 6080

// DefaultDevice is the name of the TUN device unless another is given.
const DefaultDevice = "uvsdecap0"

// Decapsulator takes tunnelled packets from the host's interfaces and gives the packets inside to its stack.
type Decapsulator struct {
	log     *zap.Logger
	lock    int // descriptors
	guard   refusalGuard
	host    *host
	paths   []path // one for each IP family that tunnels come in
	sysctls tun.Sysctls
	device  *tun.Device
}

// path is where the tunnelled packets of one IP family come from, and what becomes of them.
type path struct {
	*tap
	*worker
}

// New makes the TUN device with the virtual addresses, and opens all sockets, in the network namespace of the calling
// thread. It changes the host's ARP settings, so that it keeps silent about the virtual addresses. Needs CAP_NET_ADMIN
// and CAP_NET_RAW. Close undoes everything; if the process dies, the kernel undoes all but the ARP settings.
func New(cfg Config) (*Decapsulator, error) {
	rules, err := NewRules(cfg.Directors, cfg.VIPs, cfg.GUEPort)
	if err != nil {
		return nil, err
	}
	if cfg.Device == "" {
		cfg.Device = DefaultDevice
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	d := &Decapsulator{log: cfg.Log, lock: -1}
	if err := d.open(cfg, rules); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Decapsulator) open(cfg Config, rules *Rules) (err error) {
	if d.lock, err = lockNamespace(); err != nil {
		return err
	}
	if d.host, err = openHost(cfg.Interface); err != nil {
		return err
	}
	if err := d.host.checkKernel(d.log, rules); err != nil {
		return err
	}
	d.silenceARP() // before the host has the addresses
	dev := tun.Config{Name: cfg.Device}
	for _, vip := range cfg.VIPs {
		dev.Addresses = append(dev.Addresses, netip.PrefixFrom(vip, vip.BitLen()))
	}
	if d.device, err = tun.Open(dev); err != nil {
		return err
	}
	d.host.device = d.device.Index()
	if err := d.host.load(); err != nil {
		return err
	}
	if cfg.Interface != "" && d.host.ifindex.Load() == 0 {
		d.log.Warn("no such interface yet: nothing is taken until there is one", zap.String("interface", cfg.Interface))
	}
	for _, v6 := range []bool{false, true} {
		if !rules.from(v6) {
			continue
		}
		if err := d.guard.open(v6, cfg.GUEPort); err != nil {
			return err
		}
		t, err := openTap(v6, cfg.GUEPort, d.device.Index())
		if err != nil {
			return err
		}
		w := &worker{rules: rules, host: d.host, device: d.device, notices: notices{log: d.log}}
		if v6 {
			w.gather, w.began = fragment.New(fragment.Limits{}), time.Now()
		}
		d.paths = append(d.paths, path{t, w})
	}
	d.log.Info("decapsulating", zap.String("device", d.device.Name()), zap.Stringers("directors", cfg.Directors),
		zap.Stringers("vips", cfg.VIPs), zap.String("interface", cfg.Interface),
		zap.Uint16("gue-port", cfg.GUEPort))
	return nil
}

// lockNamespace makes sure that there is one decapsulator in a network namespace: of two, each would refuse the other's
// packets, and the first to stop would take back the ARP settings that both need. The lock is an abstract Unix address,
// which is of the namespace and goes with the process.
func lockNamespace() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@uvsdecap"}); err != nil {
		unix.Close(fd)
		if err == unix.EADDRINUSE {
			return -1, errors.New("uvsdecap runs here already (abstract socket @uvsdecap): one process serves all virtual addresses of a host")
		}
		return -1, fmt.Errorf("take lock: %w", err)
	}
	return fd, nil
}

// silenceARP keeps the host from answering ARP for the virtual addresses, which would draw their traffic past the
// director. Linux answers for any address it has on any interface unless arp_ignore is 1, which is about the interface
// that is asked, so the TUN device's own setting doesn't matter. And it asks for its next hop with the source address of
// the packet it wants to send, here a virtual one, from which the others learn a wrong way, unless arp_announce is 2.
func (d *Decapsulator) silenceARP() {
	for _, s := range []struct {
		name  string
		least int
	}{{"net/ipv4/conf/all/arp_ignore", 1}, {"net/ipv4/conf/all/arp_announce", 2}} {
		setting := strings.ReplaceAll(s.name, "/", ".")
		switch changed, err := d.sysctls.Raise(s.name, s.least); {
		case err != nil:
			d.log.Warn("this host may answer ARP for the virtual addresses and draw their traffic past the director", zap.Error(err))
		case changed:
			d.log.Info("set until the end, lest this host answer ARP for the virtual addresses",
				zap.String("sysctl", setting), zap.Int("value", s.least))
		}
	}
}

// Run takes packets until ctx ends, or until it cannot go on: the device was deleted, for one.
func (d *Decapsulator) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer context.AfterFunc(ctx, d.host.stop)()
		return d.host.watch(d.log)
	})
	for _, p := range d.paths {
		g.Go(func() error {
			defer p.interruptWith(ctx)()
			return p.run(ctx, p.tap)
		})
	}
	return g.Wait()
}

// Stats are the counts so far.
func (d *Decapsulator) Stats() (sum Stats) {
	for _, p := range d.paths {
		p.mu.Lock()
		p.stats.QueueFull += p.drops()
		sum.add(&p.stats)
		p.mu.Unlock()
	}
	return sum
}

// Close removes the device with the virtual addresses, puts the ARP settings back and closes the sockets. Run must have
// returned.
func (d *Decapsulator) Close() error {
	var errs []error
	for _, p := range d.paths {
		errs = append(errs, p.close())
	}
	if d.device != nil {
		errs = append(errs, d.device.Close())
	}
	errs = append(errs, d.sysctls.Restore()) // after the addresses are gone
	if d.host != nil {
		d.host.close()
	}
	errs = append(errs, d.guard.close())
	if d.lock >= 0 {
		errs = append(errs, unix.Close(d.lock))
	}
	return errors.Join(errs...)
}
