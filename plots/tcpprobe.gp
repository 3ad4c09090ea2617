# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# tcpprobe.gp - one variable of TCP over time, a panel a flow, from the CSV files of read_data.py.
# gnuplot -e 'kind="cwnd"; out="cwnd.png"; files="flow-1.csv flow-2.csv"; names="a:1>b:2 c:3>d:4"' plots/tcpprobe.gp
#
# kind is cwnd, rtt, flight or pacing. Retransmissions and time-outs are marked in each. caption: a line to stand below.
if (!exists("caption")) caption = ""
n = words(files)
columns = n <= 2 ? 1 : n <= 4 ? 2 : n <= 9 ? 3 : 4
rows = int(ceil(1.0 * n / columns))
panel_w = columns == 1 ? 980 : columns == 2 ? 640 : 420
panel_h = n == 1 ? 440 : columns == 1 ? 300 : columns == 2 ? 340 : 240
left = 95.0
right = 25.0
top = 110.0 # the title and the key, above all data
bottom = caption eq "" ? 60.0 : 85.0
gap_x = 85.0
gap_y = 62.0
width = left + right + columns * panel_w + (columns - 1) * gap_x
height = top + bottom + rows * panel_h + (rows - 1) * gap_y

set terminal pngcairo size width,height font "sans,11"
set output out
set datafile separator ","
set datafile columnheaders
set datafile missing ""

title = kind eq "cwnd" ? "Congestion window and slow start threshold" : \
	kind eq "rtt" ? "Smoothed round-trip time and retransmission time-out" : \
	kind eq "flight" ? "Bytes in flight and bytes queued" : "Pacing rate"
unit = kind eq "cwnd" ? "segments" : kind eq "rtt" ? "ms" : kind eq "flight" ? "kB" : "Mbit/s"
first = kind eq "cwnd" ? "snd\\_cwnd" : kind eq "rtt" ? "srtt" : kind eq "flight" ? "snd\\_nxt - snd\\_una" : "sk\\_pacing\\_rate"
second = kind eq "cwnd" ? "ssthresh" : kind eq "rtt" ? "rto" : kind eq "flight" ? "write\\_seq - snd\\_una" : ""

is_row = 'strcol("type") ne "purge"'
# The threshold is infinite until the first loss; sequence numbers wrap.
a(x) = kind eq "cwnd" ? column("snd_cwnd (segments)") : kind eq "rtt" ? above_0(column("srtt (us)") / 1000) : \
	kind eq "flight" ? flight(column("snd_nxt (B)") - column("snd_una (B)")) : column("sk_pacing_rate (B/s)") * 8 / 1e6
b(x) = kind eq "cwnd" ? (column("ssthresh (segments)") < 1e6 ? column("ssthresh (segments)") : NaN) : \
	kind eq "rtt" ? above_0(column("rto (ms)")) : kind eq "flight" ? column("wqueue (B)") / 1000 : NaN
above_0(x) = x > 0 ? x : NaN # it has no logarithm
flight(x) = (x < 0 ? x + 2.0**32 : x) / 1000
title_of(name) = name[1:strstrt(name, ">") - 1]." to ".name[strstrt(name, ">") + 1:*]
row(y) = @is_row ? y : NaN
# A flow may have nothing of what is drawn: no pace, or no round trip yet. Without a point gnuplot would draw no picture at all.
seen = 0
noted(y) = (seen = seen || y == y, y)
# y where the count of retransmissions has grown since the row before.
last = 0
retransmitted(y) = (count = column("retrans (segments)"), grown = count > last, last = count, grown && @is_row ? y : NaN)
timed_out(y) = strcol("type") eq "timeout" ? y : NaN

set border 3
set tics nomirror
set grid ytics back lc rgb "#dddddd"
set style line 1 lc rgb "#0072b2" lw 1.6
set style line 2 lc rgb "#e69f00" lw 1.4
set style line 3 lc rgb "#d55e00" pt 9 ps 0.9
set style line 4 lc rgb "#cc0000" pt 2 ps 1.3 lw 2
if (kind eq "rtt") { set logscale y; set yrange [*:*] } else { set yrange [0:*] }
# One time axis for all panels.
begin = 1e300
end = 0
do for [i = 1:n] {
	stats word(files, i) using "time (s)" nooutput
	begin = STATS_min < begin ? STATS_min : begin
	end = STATS_max > end ? STATS_max : end
}
set xrange [begin:end > begin ? end : begin + 1]
set format y "%.10g"
unset key

set multiplot layout rows,columns \
	margins screen left / width, screen 1 - right / width, screen bottom / height, screen 1 - top / height \
	spacing screen gap_x / width, screen gap_y / height
do for [i = 1:n] {
	set title title_of(word(names, i)) noenhanced font "sans,11" offset 0,-0.6
	set xlabel (i > n - columns ? "time since the probe was opened (s)" : "") offset 0,0.4
	set ylabel (i % columns == 1 || columns == 1 ? unit : "") offset -0.5,0
	seen = 0
	last = 1e12
	plot word(files, i) using "time (s)":(noted(row(b(0)))) with steps ls 2, \
		"" using "time (s)":(noted(row(a(0)))) with steps ls 1, \
		"" using "time (s)":(retransmitted(a(0))) with points ls 3, \
		"" using "time (s)":(timed_out(a(0))) with points ls 4, \
		"" using "time (s)":(seen ? NaN : 1) with dots lc rgb "#ffffff"
}
# The key, in a plot of nothing over the whole picture.
set lmargin at screen 0
set rmargin at screen 1
set bmargin at screen 0
set tmargin at screen 1
unset title
unset xlabel
unset ylabel
unset border
unset tics
unset grid
unset logscale
set xrange [0:1]
set yrange [0:1]
set label 2 caption noenhanced at screen 0.01, screen 14 / height font "sans,8" textcolor rgb "#666666"
set label 1 title at screen 0.5, screen 1 - 26 / height center font "sans,15"
set key at screen 0.5, screen 1 - 46 / height center top horizontal samplen 2.5 width 1
if (second eq "") {
	plot NaN with lines ls 1 title first, NaN with points ls 3 title "retransmission", NaN with points ls 4 title "time-out"
} else {
	plot NaN with lines ls 1 title first, NaN with lines ls 2 title second, \
		NaN with points ls 3 title "retransmission", NaN with points ls 4 title "time-out"
}
unset multiplot
