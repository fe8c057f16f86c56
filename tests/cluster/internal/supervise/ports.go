package supervise

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Ports are taken below the range from which the kernel gives out client ports, so that a stopped component finds its own free again.
const (
	firstPort = 20000
	lastPort  = 32000
)

// markerPort is held on the first address of a pod range for as long as a cluster uses it.
const markerPort = 10250

// freePort is free now on 127.0.0.1, and none of taken.
func freePort(taken map[int]bool) (int, error) {
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if taken[port] {
			continue
		}
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		listener.Close()
		taken[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

// podRange is an address range that no other cluster on this machine uses: it lasts until the listener is closed.
type podRange struct {
	prefix netip.Prefix
	marker net.Listener
}

// claim takes the wished range, or else any free 127.N.0.0/16; preferred is tried first.
func claim(wished, preferred string) (podRange, error) {
	if wished != "" {
		return claimOne(wished)
	}
	if preferred != "" {
		if claimed, err := claimOne(preferred); err == nil {
			return claimed, nil
		}
	}
	for second := 2; second < 255; second++ {
		if claimed, err := claimOne(fmt.Sprintf("127.%d.0.0/16", second)); err == nil {
			return claimed, nil
		}
	}
	return podRange{}, fmt.Errorf("every range from 127.2.0.0/16 to 127.254.0.0/16 is in use")
}

func claimOne(text string) (podRange, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() > 24 {
		return podRange{}, fmt.Errorf("--pod-range %q is not an IPv4 range of /24 or larger, such as 127.7.0.0/16", text)
	}
	prefix = prefix.Masked()
	address := netip.AddrPortFrom(prefix.Addr().Next(), markerPort)
	marker, err := net.Listen("tcp4", address.String())
	if err != nil {
		return podRange{}, fmt.Errorf("--pod-range %s cannot be had (in use, or not local to this machine): %w", text, err)
	}
	return podRange{prefix: prefix, marker: marker}, nil
}

// portOr is wished where that is free, else any free port.
func portOr(wished int, taken map[int]bool) (int, error) {
	if wished != 0 && !taken[wished] {
		listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", wished))
		if err == nil {
			listener.Close()
			taken[wished] = true
			return wished, nil
		}
	}
	return freePort(taken)
}
