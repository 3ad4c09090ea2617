# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# echo.gp - the echo table of "make bench" as bars: instructions per 64-byte round trip, by server and
# number of connections.
# gnuplot -e "csv='output/bench/echo.csv'; out='echo.png'" plots/echo.gp
set terminal pngcairo size 1000,620 font "sans,11"
set output out
set datafile separator ","
set title "Cost of a 64-byte echo (client, server and network stack together)" font "sans,14"
set ylabel "thousand instructions a round trip"
set xlabel "connections"
set yrange [0:*]
set style data histograms
set style histogram clustered gap 1
set style fill solid 0.9 border -1
set boxwidth 0.9
set grid y back lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside top center horizontal samplen 1

# Rows of one server, 64-byte messages only: its connections as labels, its cost as the bar.
cost(server) = sprintf("< awk -F, '$1 == \"%s\" && $3 == 64 { print $2 \",\" $5 / 1000 }' %s", server, csv)
plot cost("user-echo-server") using 2:xtic(1) lc rgb "#d55e00" title "user-echo-server (epoll)", \
     cost("kecho fastpath=1") using 2 lc rgb "#0072b2" title "kecho", \
     cost("kecho fastpath=0 bench=0") using 2 lc rgb "#56b4e9" title "kecho, worker only", \
     cost("kecho fastpath=0 bench=1") using 2 lc rgb "#009e73" title "kecho, worker only, bench=1"
