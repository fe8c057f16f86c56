package kubelet

import (
	"fmt"
	"net/netip"
	"sync"
)

// addresses gives every pod its own address out of one range, and an address that is free again as late as possible.
type addresses struct {
	prefix netip.Prefix

	mu   sync.Mutex
	last netip.Addr
	used map[netip.Addr]bool
}

// newAddresses leaves out the first address behind the network's own: it marks the range as taken.
func newAddresses(prefix netip.Prefix) *addresses {
	return &addresses{prefix: prefix.Masked(), last: prefix.Masked().Addr().Next(), used: map[netip.Addr]bool{}}
}

// take gives the wished address if it lies in the range and is free, else the next free one.
func (a *addresses) take(wished string) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if address, err := netip.ParseAddr(wished); err == nil && a.prefix.Contains(address) && !a.used[address] {
		a.used[address] = true
		return address, nil
	}
	candidate := a.last
	for range 1 << (32 - a.prefix.Bits()) {
		candidate = a.after(candidate)
		if usable(candidate) && !a.used[candidate] {
			a.last = candidate
			a.used[candidate] = true
			return candidate, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("all addresses of %s are in use by pods", a.prefix)
}

func (a *addresses) release(address netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, address)
}

// after is the next address, round the range; the first two are never given.
func (a *addresses) after(address netip.Addr) netip.Addr {
	if next := address.Next(); a.prefix.Contains(next) {
		return next
	}
	return a.prefix.Addr().Next().Next()
}

// usable leaves out what looks like a network or a broadcast address.
func usable(address netip.Addr) bool {
	bytes := address.As4()
	return bytes[3] != 0 && bytes[3] != 255
}
