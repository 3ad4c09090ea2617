# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# echo.gp - the echo table of "make bench" in two pictures: what a 64-byte round trip costs each server, by number of
# connections, as bars; and how many messages a second that makes, by number of connections, as lines.
# gnuplot -e "csv='output/bench/echo.csv'; caption='...'; bars='cost.png'; lines='throughput.png'" plots/echo.gp
if (!exists("caption")) caption = ""
set datafile separator ","
set border 3
set tics nomirror
set grid y back lc rgb "#dddddd"
set key outside right top vertical samplen 2 spacing 1.3 noenhanced
set label 1 caption noenhanced at screen 0.01, screen 0.035 font "sans,8" textcolor rgb "#666666"
set bmargin at screen 0.16

servers = "kecho;kecho worker;kecho worker bench=1;epoll;io_uring;splice;sockmap;threads;kthreads"
colours = "#0072b2 #56b4e9 #009e73 #d55e00 #cc79a7 #8b1a1a #e69f00 #999999 #555555"
# One lies under another.
dash(i) = i == 3 ? 2 : 1
name(i) = system(sprintf("echo '%s' | cut -d';' -f%d", servers, i))

# Rows of one server, 64-byte messages only: connections, and instructions, none where it was refused.
rows(i) = sprintf("< awk -F, 'NR == 1 { for (n = 1; n <= NF; n++) at[$n] = n; next } $at[\"server\"] == \"%s\" && $at[\"bytes\"] == 64 { print $at[\"connections\"] \",\" ($at[\"refused\"] == \"\" ? $at[\"ns_per_message\"] : \"NaN\") }' %s", name(i), csv)

# Numbers of those of which something was measured.
present = ""
do for [i=1:9] {
	if (system(substr(rows(i), 3, strlen(rows(i)))." | grep -vc NaN") > 0) { present = present.sprintf(" %d", i) }
}

if (words(present) == 0) { exit error csv.": no row to draw" }

set terminal pngcairo size 1100,620 font "sans,11"
set title "Cost of a 64-byte echo: client, server and network stack together" font "sans,14"
set xlabel "connections"
set output bars
set ylabel "thousand instructions a round trip"
set yrange [0:*]
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
plot for [w in present] rows(int(w)) using ($2/1000):xtic(1) lc rgb word(colours, int(w)) title name(int(w))

set output lines
set title "64-byte echoes by number of connections: closed loop, one client thread, one CPU for all" font "sans,14"
set ylabel "thousand messages in 10^9 instructions"
set logscale x 2
set xtics (1, 32, 256, 1024, 2048)
set xrange [0.8:2600]
set style data linespoints
plot for [w in present] rows(int(w)) using 1:(1e6/$2) lw 2 dt dash(int(w)) pt 7 ps 1.2 lc rgb word(colours, int(w)) title name(int(w))
